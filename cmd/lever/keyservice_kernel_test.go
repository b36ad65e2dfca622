//go:build kernel

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/keyservice/kmetest"
	"github.com/lever-link/lever/internal/lab"
)

// aService is where each router has its key management entity.
const aService = "127.0.0.1:8443"

// Keys of one channel come from key management entities, one beside each router, and
// their ids over the untrusted link itself, behind the fence. Epochs change under
// traffic; an entity that fails and an agent that is restarted cost no frame.
func TestKeyService(t *testing.T) {
	t.Parallel()
	inventory := strings.Replace(pairInventory("cak_epoch: 1m, max_age: 30m"), "  b: {type: dir, path: keys/b}\n",
		"  b: {type: etsi014, url: \"https://"+aService+"\", ca: tls/ca.crt, certificate: tls/node.crt, key: tls/node.key}\n", 1)
	s := newSite(t, inventory, inventory)
	network := kmetest.NewNetwork()
	var kmes []*kmetest.KME
	for i, r := range s.routers {
		kmes = append(kmes, network.KME(fmt.Sprintf("r%d", i+1)))
		s.serve(r, kmes[i])
	}
	first := int(keys.ScheduledEpoch(time.Now(), time.Minute).Number)
	for e := first; e < first+10; e++ {
		s.deliver(e, "a")
	}
	s.start()
	key := s.secured()
	s.underStream(0, 1, besides, func() {
		s.rotates()
		key = s.securedAnew(key)

		t.Log("an entity that has no keys")
		kmes[0].Set(kmetest.Faults{Empty: true})
		s.within("the fault", func(all []lab.LinkStatus) bool {
			return slices.ContainsFunc(all[0].Faults, func(f lab.FaultStatus) bool { return f.Code == string(health.KeyServiceRefused) })
		})
		s.fault(0, health.KeyServiceRefused, "channel b", "no key is available")
		s.await("the link to stay secured", isSecured, 0, 1)
		kmes[0].Set(kmetest.Faults{})
		s.rotates()
		_ = s.securedAnew(key)
		s.noFault(0, health.KeyServiceRefused)

		t.Log("an agent that is killed and has lost its keys")
		s.kill(1)
		s.start(1)
		s.await("the link to be secured again", isSecured, 0, 1)
	})
	s.onlyEncrypted()
}

// within is await for what comes with an epoch, of which there is one a minute.
func (s *site) within(what string, good func(all []lab.LinkStatus) bool) {
	s.Helper()
	_, err := lab.AwaitStatus(s.ctx(), s.routers, theLink, 3*time.Minute, what, good)
	s.must(err)
}

// rotates waits until both ends use another epoch than now.
func (s *site) rotates() {
	s.Helper()
	was := s.status(0).Epoch
	s.within("the next epoch", func(all []lab.LinkStatus) bool {
		return isSecured(all[0]) && isSecured(all[1]) && all[0].Epoch == all[1].Epoch && all[0].Epoch != was
	})
}

// serve starts an entity beside a router, with certificates of an authority of its own.
func (s *site) serve(r *lab.Router, kme *kmetest.KME) {
	s.Helper()
	dir := r.Path("tls")
	s.must(os.MkdirAll(dir, 0o700))
	newKey := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		s.must(err)
		return k
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	rootKey := newKey()
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, &rootKey.PublicKey, rootKey)
	s.must(err)
	root, err = x509.ParseCertificate(rootDER)
	s.must(err)
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		s.must(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	issue := func(file, name string) (certificate, key string) {
		k := newKey()
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * time.Hour),
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		}, root, &k.PublicKey, rootKey)
		s.must(err)
		private, err := x509.MarshalPKCS8PrivateKey(k)
		s.must(err)
		return write(file+".crt", "CERTIFICATE", der), write(file+".key", "PRIVATE KEY", private)
	}
	write("ca.crt", "CERTIFICATE", rootDER)
	issue("node", r.Name)
	pair, err := tls.LoadX509KeyPair(issue("kme", "kme"))
	s.must(err)
	pool := x509.NewCertPool()
	pool.AddCert(root)
	var l net.Listener
	s.must(r.Space.Do(func() error {
		l, err = net.Listen("tcp", aService)
		return err
	}))
	server := &http.Server{Handler: kme, ReadHeaderTimeout: patience}
	served := make(chan error, 1)
	go func() {
		served <- server.Serve(tls.NewListener(l, &tls.Config{
			Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
		}))
	}()
	s.Cleanup(func() {
		s.mustNot(server.Close())
		<-served
	})
}
