// A client and a server built on go-spiffe, for tests. Each command prints lines of JSON.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

type object map[string]any

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	commands := map[string]struct {
		arguments int
		run       func(context.Context, []string) error
	}{
		"watch":        {1, watch},
		"code":         {1, code},
		"tokens":       {2, tokens},
		"mtls":         {4, mtls},
		"get":          {3, get},
		"fetch-web":    {3, fetchWeb},
		"fetch-spiffe": {4, fetchSpiffe},
		"serve-bundle": {3, serveBundle},
	}
	if len(os.Args) < 2 {
		fail(errors.New("no command"))
	}
	command, known := commands[os.Args[1]]
	if !known || len(os.Args)-2 != command.arguments {
		fail(fmt.Errorf("no such command: %q", os.Args[1:]))
	}
	if err := command.run(ctx, os.Args[2:]); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func say(o object) {
	if err := json.NewEncoder(os.Stdout).Encode(o); err != nil {
		fail(err)
	}
}

func at(socket string) workloadapi.ClientOption {
	return workloadapi.WithAddr("unix://" + socket)
}

func sourceAt(ctx context.Context, socket string) (*workloadapi.X509Source, error) {
	return workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(at(socket)))
}

func describe(svid *x509svid.SVID) object {
	leaf := svid.Certificates[0]
	return object{"id": svid.ID.String(), "serial": leaf.SerialNumber.String(), "chain": len(svid.Certificates)}
}

// watch SOCKET: the SVID and how many authorities it comes with, at every change.
type printer struct{}

func (printer) OnX509ContextUpdate(c *workloadapi.X509Context) {
	authorities := map[string]int{}
	for _, bundle := range c.Bundles.Bundles() {
		authorities[bundle.TrustDomain().Name()] = len(bundle.X509Authorities())
	}
	said := describe(c.DefaultSVID())
	said["authorities"] = authorities
	say(said)
}

func (printer) OnX509ContextWatchError(err error) {
	say(object{"error": err.Error()})
}

func watch(ctx context.Context, arguments []string) error {
	return workloadapi.WatchX509Context(ctx, printer{}, at(arguments[0]))
}

// code SOCKET: what a caller without identity, or of a profile that is not there, is told.
func code(ctx context.Context, arguments []string) error {
	client, err := workloadapi.New(ctx, at(arguments[0]))
	if err != nil {
		return err
	}
	defer client.Close()
	_, x509Err := client.FetchX509SVID(ctx)
	_, witErr := client.FetchWITSVID(ctx, "")
	say(object{"x509": fmt.Sprint(x509Err), "wit": fmt.Sprint(witErr)})
	return nil
}

// tokens SOCKET AUDIENCE: a token, validated here with the bundles and over the Workload API.
func tokens(ctx context.Context, arguments []string) error {
	source, err := workloadapi.NewJWTSource(ctx, workloadapi.WithClientOptions(at(arguments[0])))
	if err != nil {
		return err
	}
	defer source.Close()
	svid, err := source.FetchJWTSVID(ctx, jwtsvid.Params{Audience: arguments[1]})
	if err != nil {
		return err
	}
	here, err := jwtsvid.ParseAndValidate(svid.Marshal(), source, []string{arguments[1]})
	if err != nil {
		return err
	}
	there, err := workloadapi.ValidateJWTSVID(ctx, svid.Marshal(), arguments[1], at(arguments[0]))
	if err != nil {
		return err
	}
	_, wrong := workloadapi.ValidateJWTSVID(ctx, svid.Marshal(), "not "+arguments[1], at(arguments[0]))
	say(object{
		"id": svid.ID.String(), "here": here.ID.String(), "there": there.ID.String(),
		"audience": there.Audience, "claims": there.Claims["sub"], "wrong": fmt.Sprint(wrong),
	})
	return nil
}

// mtls SERVER-SOCKET CLIENT-SOCKET SERVER-ID CLIENT-ID: a handshake for each line on standard input.
func mtls(ctx context.Context, arguments []string) error {
	server, err := sourceAt(ctx, arguments[0])
	if err != nil {
		return err
	}
	defer server.Close()
	client, err := sourceAt(ctx, arguments[1])
	if err != nil {
		return err
	}
	defer client.Close()
	authorise := func(id string) tlsconfig.Authorizer {
		return tlsconfig.AuthorizeID(spiffeid.RequireFromString(id))
	}
	listening := tlsconfig.MTLSServerConfig(server, server, authorise(arguments[3]))
	dialling := tlsconfig.MTLSClientConfig(client, client, authorise(arguments[2]))
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		said, err := handshake(listening, dialling)
		if err != nil {
			said = object{"error": err.Error()}
		}
		say(said)
	}
	return nil
}

func handshake(listening, dialling *tls.Config) (object, error) {
	listener, err := tls.Listen("tcp", "127.0.0.1:0", listening)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	type result struct {
		client *x509.Certificate
		err    error
	}
	done := make(chan result, 1)
	go func() {
		accepted, err := listener.Accept()
		if err != nil {
			done <- result{nil, err}
			return
		}
		defer accepted.Close()
		accepted.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.CopyN(accepted, accepted, 5); err != nil {
			done <- result{nil, err}
			return
		}
		done <- result{accepted.(*tls.Conn).ConnectionState().PeerCertificates[0], nil}
	}()
	dialler := net.Dialer{Timeout: 30 * time.Second}
	connection, err := tls.DialWithDialer(&dialler, "tcp", listener.Addr().String(), dialling)
	if err != nil {
		return nil, errors.Join(err, (<-done).err)
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(30 * time.Second))
	_, err = connection.Write([]byte("hello"))
	if err == nil {
		_, err = io.ReadFull(connection, make([]byte, 5))
	}
	accepted := <-done
	if err := errors.Join(err, accepted.err); err != nil {
		return nil, err
	}
	server := connection.ConnectionState().PeerCertificates[0]
	return object{
		"server": server.URIs[0].String(), "server serial": server.SerialNumber.String(),
		"client": accepted.client.URIs[0].String(), "client serial": accepted.client.SerialNumber.String(),
	}, nil
}

// get SOCKET URL SERVER-ID: an HTTPS request with the SVID from the Workload API.
func get(ctx context.Context, arguments []string) error {
	source, err := sourceAt(ctx, arguments[0])
	if err != nil {
		return err
	}
	defer source.Close()
	config := tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(spiffeid.RequireFromString(arguments[2])))
	client := http.Client{Transport: &http.Transport{TLSClientConfig: config}}
	response, err := client.Get(arguments[1])
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	say(object{"status": response.StatusCode, "body": string(body)})
	return nil
}

func sayBundle(bundle *spiffebundle.Bundle) {
	sequence, _ := bundle.SequenceNumber()
	hint, _ := bundle.RefreshHint()
	serials, keys := []string{}, []string{}
	for _, authority := range bundle.X509Authorities() {
		serials = append(serials, authority.SerialNumber.String())
	}
	for id := range bundle.JWTAuthorities() {
		keys = append(keys, id)
	}
	sort.Strings(keys)
	say(object{"sequence": sequence, "hint": hint.Seconds(), "serials": serials, "keys": keys})
}

// fetch-web TRUST-DOMAIN URL CA-FILE: a bundle by the profile https_web.
func fetchWeb(ctx context.Context, arguments []string) error {
	pem, err := os.ReadFile(arguments[2])
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return errors.New("no roots")
	}
	domain := spiffeid.RequireTrustDomainFromString(arguments[0])
	bundle, err := federation.FetchBundle(ctx, domain, arguments[1], federation.WithWebPKIRoots(roots))
	if err != nil {
		return err
	}
	sayBundle(bundle)
	return nil
}

// fetch-spiffe TRUST-DOMAIN URL ENDPOINT-ID BUNDLE-FILE: a bundle by the profile https_spiffe.
func fetchSpiffe(ctx context.Context, arguments []string) error {
	domain, endpoint := spiffeid.RequireTrustDomainFromString(arguments[0]), spiffeid.RequireFromString(arguments[2])
	known, err := spiffebundle.Load(endpoint.TrustDomain(), arguments[3])
	if err != nil {
		return err
	}
	roots := x509bundle.NewSet(known.X509Bundle())
	bundle, err := federation.FetchBundle(ctx, domain, arguments[1], federation.WithSPIFFEAuth(roots, endpoint))
	if err != nil {
		return err
	}
	sayBundle(bundle)
	return nil
}

// serve-bundle TRUST-DOMAIN BUNDLE-FILE SOCKET: an endpoint with the profile https_spiffe, until standard input ends.
func serveBundle(ctx context.Context, arguments []string) error {
	domain := spiffeid.RequireTrustDomainFromString(arguments[0])
	bundle, err := spiffebundle.Load(domain, arguments[1])
	if err != nil {
		return err
	}
	source, err := sourceAt(ctx, arguments[2])
	if err != nil {
		return err
	}
	defer source.Close()
	handler, err := federation.NewHandler(domain, bundle)
	if err != nil {
		return err
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", tlsconfig.TLSServerConfig(source))
	if err != nil {
		return err
	}
	say(object{"url": "https://" + listener.Addr().String() + "/bundle.json"})
	server := http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener)
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, server.Close())
}
