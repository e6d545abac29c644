package cli

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/tcplab/tcplab/controller"
	"github.com/tcplab/tcplab/controller/store"
	"github.com/tcplab/tcplab/internal/tunnel"
)

// directoryWithin is how long a controller waits for the one before it to end.
const directoryWithin = 10 * time.Second

// serveController is a controller's whole life.
func (a *app) serveController(ctx context.Context, f *controllerFlags) (err error) {
	dir, err := a.controllerDirectory()
	if err != nil {
		return err
	}
	st, err := store.Open(ctx, dir, store.Options{Wait: directoryWithin, Lasting: true, Log: a.log.With("part", "store")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	socket, err := listenSocket(ctx, dir)
	if err != nil {
		return err
	}
	listeners := []net.Listener{socket}
	var addresses []string
	for _, address := range f.listen {
		config := net.ListenConfig{KeepAliveConfig: tunnel.KeepAlive(), Control: tunnel.Control}
		lis, err := config.Listen(ctx, "tcp", address)
		if err != nil {
			for _, open := range listeners {
				err = errors.Join(err, open.Close())
			}
			return usageError("--listen %s: %v", address, err)
		}
		listeners = append(listeners, lis)
		addresses = append(addresses, lis.Addr().String())
	}
	ctx, _, stop := a.untilInterrupted(ctx)
	defer stop()
	a.printf("controller %s serves at %v; its state is in %s\n", f.name, addresses, dir)
	return controller.Run(ctx, controller.Config{
		Store: st, Lease: f.lease, Version: version(), Log: a.log.With("part", "controller"),
		Fleet: &controller.Fleet{Name: f.name, CertificateLife: f.life},
	}, listeners...)
}
