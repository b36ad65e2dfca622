package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"github.com/lever-link/lever/internal/secret"
)

// DefaultTPM is the TPM of a machine, behind the kernel's resource manager.
const DefaultTPM = "/dev/tpmrm0"

// parent is the storage primary key beneath which identities are sealed: the
// ECC P-256 storage root key of the TCG's provisioning guidance. A TPM derives it
// from its owner seed each time, so that nothing has to be kept in it; clearing the
// TPM draws another seed and makes what is sealed useless.
var parent = tpm2.ECCSRKTemplate

// sealedObject is a keyed-hash object without a scheme, which holds data. It
// cannot be moved to another TPM, and asks for no password: whoever can read the
// file and open the device is root already.
var sealedObject = tpm2.TPMTPublic{
	Type:    tpm2.TPMAlgKeyedHash,
	NameAlg: tpm2.TPMAlgSHA256,
	ObjectAttributes: tpm2.TPMAObject{
		FixedTPM:     true,
		FixedParent:  true,
		UserWithAuth: true,
		NoDA:         true,
	},
}

// seal has a TPM encrypt a secret so that only it can open it.
func seal(device string, key secret.Key) (s sealedText, err error) {
	fail := func(err error) (sealedText, error) {
		return sealedText{}, fmt.Errorf("sealing an identity by the TPM %s: %w", device, err)
	}
	tpm, err := openTPM(device)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = tpm.Close() }()
	srk, err := loadParent(tpm)
	if err != nil {
		return fail(err)
	}
	defer srk.flush()
	made, err := tpm2.Create{
		ParentHandle: srk.handle(),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: key.Bytes()}),
		}},
		InPublic: tpm2.New2B(sealedObject),
	}.Execute(tpm)
	if err != nil {
		return fail(err)
	}
	return sealedText{device: device, public: tpm2.Marshal(made.OutPublic), private: tpm2.Marshal(made.OutPrivate)}, nil
}

// unseal has the TPM open what it has sealed.
func unseal(s sealedText) (secret.Key, error) {
	fail := func(err error) (secret.Key, error) {
		return secret.Key{}, fmt.Errorf("unsealing by the TPM %s: %w", s.device, err)
	}
	public, err := tpm2.Unmarshal[tpm2.TPM2BPublic](s.public)
	if err != nil {
		return fail(ErrDamaged)
	}
	private, err := tpm2.Unmarshal[tpm2.TPM2BPrivate](s.private)
	if err != nil {
		return fail(ErrDamaged)
	}
	tpm, err := openTPM(s.device)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = tpm.Close() }()
	srk, err := loadParent(tpm)
	if err != nil {
		return fail(err)
	}
	defer srk.flush()
	rsp, err := tpm2.Load{ParentHandle: srk.handle(), InPrivate: *private, InPublic: *public}.Execute(tpm)
	if err != nil {
		return fail(fmt.Errorf("%w: it was sealed by another TPM, or this one was cleared since, or the file is damaged; make another identity (lever node init --tpm) and enrol that one", err))
	}
	object := loaded{tpm: tpm, name: rsp.Name, object: rsp.ObjectHandle}
	defer object.flush()
	opened, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{
		Handle: object.object, Name: object.name, Auth: srk.session(tpm2.AESEncryption(128, tpm2.EncryptOut)),
	}}.Execute(tpm)
	if err != nil {
		return fail(err)
	}
	return secret.New(opened.OutData.Buffer), nil
}

// loaded is an object that is loaded into a TPM.
type loaded struct {
	tpm    transport.TPM
	object tpm2.TPMHandle
	name   tpm2.TPM2BName
	public tpm2.TPMTPublic
}

func loadParent(tpm transport.TPM) (loaded, error) {
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(parent)}.Execute(tpm)
	if err != nil {
		return loaded{}, fmt.Errorf("making its storage primary key: %w", err)
	}
	srk := loaded{tpm: tpm, object: made.ObjectHandle, name: made.Name}
	public, err := made.OutPublic.Contents()
	if err != nil {
		srk.flush()
		return loaded{}, fmt.Errorf("reading its storage primary key: %w", err)
	}
	srk.public = *public
	return srk, nil
}

// flush frees the object's place in the TPM, of which there are few. If it fails,
// the kernel's resource manager does it when the device is closed.
func (l loaded) flush() { _, _ = tpm2.FlushContext{FlushHandle: l.object}.Execute(l.tpm) }

func (l loaded) handle() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: l.object, Name: l.name, Auth: l.session(tpm2.AESEncryption(128, tpm2.EncryptInOut))}
}

// session authorises one command, and encrypts what goes over the bus between here
// and the TPM with a secret that is itself encrypted to the storage primary key:
// who listens to the bus learns nothing. Who answers in the TPM's place does.
func (l loaded) session(encryption tpm2.AuthOption) tpm2.Session {
	return tpm2.HMAC(tpm2.TPMAlgSHA256, 16, encryption, tpm2.Salted(l.object, l.public))
}

// openTPM opens a device, or the socket of an emulator.
func openTPM(device string) (transport.TPMCloser, error) {
	info, err := os.Stat(device)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: this machine has no TPM there, or its kernel no driver for it; give the device, or leave --tpm out", err)
	case err != nil:
		return nil, err
	case info.Mode()&fs.ModeSocket != 0:
		return linuxudstpm.Open(device)
	}
	return linuxtpm.Open(device)
}
