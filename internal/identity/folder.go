package identity

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Names in a folder that keeps a credential.
const (
	keyFile         = "key.pem" // PKCS #8, mode 0600
	certificateFile = "certificate.pem"
	authorityFile   = "authority.pem"
)

// Types of PEM blocks.
const (
	keyBlock         = "PRIVATE KEY"
	certificateBlock = "CERTIFICATE"
)

// Save keeps a credential in a folder, which is made where it is missing. The certificate comes last: without
// it there is no credential.
func Save(dir string, c *Credential) error {
	if err := SaveAuthority(dir, c.key, c.authority.Raw); err != nil {
		return err
	}
	return SaveCertificate(dir, c)
}

// SaveAuthority keeps a key and the certificate of an authority, DER, in a folder, which is made where it is missing. The
// certificate comes last.
func SaveAuthority(dir string, key crypto.Signer, certificate []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make a folder for the key: %w", err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode the key: %w", err)
	}
	if err := writeFile(dir, keyFile, pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: encoded})); err != nil {
		return err
	}
	return writeFile(dir, authorityFile, pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: certificate}))
}

// LoadAuthority reads the authority's certificate that a folder keeps. The error is fs.ErrNotExist where there is none.
func LoadAuthority(dir string) (*x509.Certificate, error) {
	der, err := readBlock(dir, authorityFile, certificateBlock)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("the authority's certificate in %s: %w", dir, err)
	}
	return certificate, nil
}

// SaveCertificate keeps a certificate that was replaced.
func SaveCertificate(dir string, c *Credential) error {
	return writeFile(dir, certificateFile, pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: c.Leaf().Raw}))
}

// Remove forgets the credential in a folder. Without one it does nothing.
func Remove(dir string) error {
	var errs []error
	for _, name := range []string{certificateFile, keyFile, authorityFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Load reads the credential that a folder keeps. The error is fs.ErrNotExist where there is none.
func Load(dir string) (*Credential, error) {
	certificate, err := readBlock(dir, certificateFile, certificateBlock)
	if err != nil {
		return nil, err
	}
	key, err := LoadKey(dir)
	if err != nil {
		return nil, err
	}
	authority, err := readBlock(dir, authorityFile, certificateBlock)
	if err != nil {
		return nil, err
	}
	c, err := NewCredential(key, certificate, authority)
	if err != nil {
		return nil, fmt.Errorf("the credential in %s: %w", dir, err)
	}
	return c, nil
}

// LoadKey reads the key in a folder, and refuses one that others could have read.
func LoadKey(dir string) (crypto.Signer, error) {
	path := filepath.Join(dir, keyFile)
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the key %s has mode %04o, so that others than its owner may have read it: join again with a new one", path, info.Mode().Perm())
	}
	der, err := readBlock(dir, keyFile, keyBlock)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("read the key %s: %w", path, err)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("the key %s cannot sign", path)
	}
	return key, nil
}

func readBlock(dir, name, kind string) ([]byte, error) {
	path := filepath.Join(dir, name)
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the credential: %w", err)
	}
	block, _ := pem.Decode(content)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s holds no %s in PEM", path, kind)
	}
	return block.Bytes, nil
}

// writeFile writes a file whole, or not at all, for this user alone.
func writeFile(dir, name string, content []byte) (err error) {
	file, err := os.CreateTemp(dir, "."+name+"-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write %s: %w", filepath.Join(dir, name), err), os.Remove(file.Name()))
		}
	}()
	_, err = file.Write(content)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return nil // it is in its place; that it survives a power cut is all that is in doubt
	}
	return errors.Join(folder.Sync(), folder.Close())
}
