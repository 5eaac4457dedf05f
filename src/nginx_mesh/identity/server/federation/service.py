"""Federation: an identity server publishes its bundle and follows those of other trust domains."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from nginx_mesh.api.errors import FieldError, located
from nginx_mesh.api.values import parse_host_port
from nginx_mesh.identity.common.bundle import TrustBundle
from nginx_mesh.identity.common.tls import SvidSource
from nginx_mesh.identity.server.config import FederationSection
from nginx_mesh.identity.server.datastore.base import Datastore

from .endpoint import BundleEndpoint, spiffe_context, web_context
from .poller import FederationPoller

log = logging.getLogger(__name__)


class Federation:
    """Publishes what `bundle` gives, with the SVID that `own` gives, and keeps the bundles of others up to date."""

    def __init__(
        self, section: FederationSection, datastore: Datastore, own: SvidSource, bundle: Callable[[], TrustBundle]
    ) -> None:
        self._section = section
        web_ca = None if section.web_ca_file is None else Path(section.web_ca_file)
        self._poller = FederationPoller(datastore, bundle().trust_domain, web_ca=web_ca)
        self._own, self._bundle = own, bundle
        self._endpoint: BundleEndpoint | None = None

    async def start(self) -> None:
        """Publish the bundle where the configuration says so. Raises FieldError."""
        section = self._section.bundle_endpoint
        if section is None:
            return
        where = "identity.federation.bundleEndpoint"
        with located(f"{where}.address"):
            address = parse_host_port(section.address)
        if section.profile == "https_spiffe":
            if section.cert_file is not None or section.key_file is not None:
                raise FieldError(where, "certFile and keyFile are for the profile https_web only")
            context = spiffe_context(self._own, self._bundle)
        else:
            if section.cert_file is None or section.key_file is None:
                raise FieldError(where, "certFile and keyFile are required with the profile https_web")
            certificate, key = Path(section.cert_file), Path(section.key_file)
            try:
                context = await asyncio.to_thread(web_context, certificate, key)
            except OSError as error:
                raise FieldError(f"{where}.certFile", f"{certificate}: {error}") from None
        endpoint = BundleEndpoint(self._bundle, context)
        try:
            await endpoint.start(address.host, address.port)
        except OSError as error:
            raise FieldError(f"{where}.address", f"{address}: {error.strerror or error}") from None
        self._endpoint = endpoint
        log.info("publishing the bundle at https://%s/ (%s)", address, section.profile)

    def reload(self, trust_domain: str) -> None:
        """Take in that an operator entered or ended the relationship with a trust domain."""
        self._poller.reload(trust_domain)

    async def run(self) -> None:
        """Follow the bundles of other trust domains until cancelled."""
        await self._poller.run()

    async def close(self) -> None:
        """Stop publishing."""
        if self._endpoint is not None:
            await self._endpoint.close()
