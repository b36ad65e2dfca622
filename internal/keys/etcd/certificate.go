package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/keyfile"
)

// files are the paths of what mutual TLS needs, in PEM.
type files struct{ ca, certificate, key string }

func (f files) check() error {
	for _, file := range [][2]string{{"CA", f.ca}, {"certificate", f.certificate}, {"key", f.key}} {
		if file[1] == "" {
			return fmt.Errorf("the etcd channel has no %s: it needs all of ca, certificate and key for mutual TLS", file[0])
		}
	}
	return nil
}

// signature differs when one of the files may have changed.
func (f files) signature() string {
	var b strings.Builder
	for _, path := range []string{f.ca, f.certificate, f.key} {
		info, err := os.Stat(path)
		if err != nil {
			fmt.Fprintf(&b, "%v\n", err)
			continue
		}
		fmt.Fprintf(&b, "%v %d %d", info.Mode(), info.Size(), info.ModTime().UnixNano())
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			fmt.Fprintf(&b, " %d %d %d %d %d", st.Dev, st.Ino, st.Uid, st.Ctim.Sec, st.Ctim.Nsec)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// fileError is a file that cannot be used.
type fileError struct {
	path string
	err  error
}

func (e *fileError) Error() string { return e.path + ": " + e.err.Error() }
func (e *fileError) Unwrap() error { return e.err }

// finding is the fault that the file has.
func (e *fileError) finding() keys.Finding {
	f := keys.Finding{Code: health.KeyFileUnreadable, File: e.path, Detail: e.err.Error()}
	var permission *keyfile.PermissionError
	var path *fs.PathError
	switch {
	case errors.As(e.err, &permission):
		f.Code, f.Detail = health.KeyFilePermissions, permission.Reason
	case errors.Is(e.err, fs.ErrNotExist):
		f.Detail = "it does not exist"
	case errors.As(e.err, &path):
		f.Detail = path.Err.Error()
	}
	return f
}

// identity is what the files held when they were read.
type identity struct {
	roots *x509.CertPool
	pair  tls.Certificate
}

// load reads the files. The private key must be as private as a key of ours. What a
// private key is made of stays in memory for as long as crypto/tls needs it.
func (f files) load() (identity, error) {
	fail := func(path string, err error) (identity, error) { return identity{}, &fileError{path, err} }
	ca, err := keyfile.ReadPEM(f.ca)
	if err != nil {
		return fail(f.ca, err)
	}
	id := identity{roots: x509.NewCertPool()}
	if !id.roots.AppendCertsFromPEM(ca) {
		return fail(f.ca, errors.New("there is no certificate in it"))
	}
	certificate, err := keyfile.ReadPEM(f.certificate)
	if err != nil {
		return fail(f.certificate, err)
	}
	key, err := keyfile.ReadPrivatePEM(f.key)
	defer clear(key)
	if err != nil {
		return fail(f.key, err)
	}
	if id.pair, err = tls.X509KeyPair(certificate, key); err != nil {
		return fail(f.certificate, fmt.Errorf("it does not make a pair with %s: %w", f.key, err))
	}
	return id, nil
}

// findings say what is wrong with the node's own certificate, or will be: less than
// a third of its life is left.
func (f files) findings(now time.Time) []keys.Finding {
	id, err := f.load()
	if err != nil {
		if bad, ok := errors.AsType[*fileError](err); ok {
			return []keys.Finding{bad.finding()}
		}
		return []keys.Finding{{Code: health.KeyFileUnreadable, File: f.certificate, Detail: err.Error()}}
	}
	leaf := id.pair.Leaf
	left, life := leaf.NotAfter.Sub(now), leaf.NotAfter.Sub(leaf.NotBefore)
	finding := keys.Finding{File: f.certificate, Until: leaf.NotAfter.UTC()}
	switch {
	case left <= 0:
		finding.Code = health.CertificateExpired
	case left < life/3:
		finding.Code = health.CertificateEnding
	default:
		return nil
	}
	return []keys.Finding{finding}
}
