"""The mesh itself: from objects to the state of every sidecar on this machine."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path

import msgspec

from nginx_mesh.api.core import Pod
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Event, Upsert
from nginx_mesh.compile.check import ObjectWarning
from nginx_mesh.compile.engine import Compiler, Touched
from nginx_mesh.compile.state import Identity, Probe
from nginx_mesh.identity.issuer import IdentitySettings, SvidIssuer
from nginx_mesh.identity.keymanager.base import KeyManager
from nginx_mesh.identity.spiffe import workload_id
from nginx_mesh.inject import probes
from nginx_mesh.node.push import Pusher, StateRefusedError

log = logging.getLogger(__name__)

# How soon a sidecar that refused its first state is looked at again.
_REFUSED_SECONDS = 1.0
# How long sidecars may take for the step between off and strict; one that is down must not hold up the others.
_STEP_SECONDS = 2.0

Warn = Callable[[ObjectKey, str, str], None]


def identity_settings(settings: MeshSettings) -> IdentitySettings:
    """The part of the mesh's settings that is about identity."""
    return IdentitySettings(settings.trust_domain, settings.svid_ttl, settings.ca_ttl, settings.ca_key_type)


def _probes(annotations: Mapping[str, str]) -> dict[str, Probe]:
    """The health checks that a pod's sidecar passes on, by the path that it is asked for."""
    return {
        redirect.path: Probe(
            scheme=redirect.scheme,
            port=redirect.port,
            path=redirect.original_path,
            headers=redirect.headers,
            host=redirect.host,
        )
        for redirect in probes(annotations)
    }


class Mesh:
    """Follows objects, and keeps the sidecars of meshed pods at the newest state.

    `objects` are those there are at the start. `control_socket` tells where the sidecar of the pod with a uid listens.
    `warn(key, reason, message)` hears what is wrong with objects, and of sidecars that refuse their state.
    """

    def __init__(
        self,
        objects: Iterable[Object],
        settings: MeshSettings,
        key_manager: KeyManager,
        *,
        control_socket: Callable[[str], Path],
        warn: Warn,
    ) -> None:
        self._control_socket = control_socket
        self._warn = warn
        self._issuer = SvidIssuer(identity_settings(settings), key_manager)
        self._settings = settings
        self._pods: dict[str, ObjectKey] = {}
        self._live: set[ObjectKey] = set()
        self._warned: dict[ObjectKey, tuple[ObjectWarning, ...]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._catalog = Catalog()
        for obj in objects:
            self._catalog.apply(Upsert(obj))
        # Milliseconds: greater than any version that an earlier daemon gave out.
        self._compiler = Compiler(self._catalog, settings, first_version=time.time_ns() // 1_000_000, probes=_probes)
        self._pusher = Pusher(self._compiler.update_for, refused=self._refused)
        self._warn_about(self._compiler.warnings)

    async def start(self) -> None:
        """Begin to rotate identities."""
        self._spawn(self._issuer.run(self._rotated))

    async def close(self) -> None:
        """Stop; the sidecars go on with what they have."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for key in tuple(self._pods.values()):
            await self._pusher.drop(key)

    def apply(self, event: Event) -> None:
        """Take in a change of any object."""
        changes = self._catalog.apply(event)
        if changes:
            self._publish(self._compiler.apply(changes))
            self._warn_about(changes.objects)

    def configure(self, settings: MeshSettings) -> None:
        """Apply the mesh's settings, live."""
        previous, self._settings = self._settings, settings
        self._issuer.reconfigure(identity_settings(settings))
        if {previous.mtls_mode, settings.mtls_mode} == {"off", "strict"}:
            # Callers and callees do not learn of it in the same instant; permissive gets on with either.
            self._publish(self._compiler.configure(msgspec.structs.replace(settings, mtls_mode="permissive")))
            self._spawn(self._configure_after_step(settings))
        else:
            self._publish(self._compiler.configure(settings))

    def serve(self, pod: Pod) -> None:
        """Give a meshed pod its identity and its sidecar its state, from now on."""
        uid, key = pod.metadata.uid, pod.key
        account = pod.spec.service_account_name or "default"
        identity = self._issuer.register(uid, workload_id(self._settings.trust_domain, key.namespace, account))
        self._pods[uid] = key
        self._publish(self._compiler.set_identity(key, identity))
        self._pusher.serve(key, self._control_socket(uid))
        if pod.status.ready:  # it got its state from the daemon before us
            self._live.add(key)
        self._spawn(self._await_first_state(key))

    async def drop(self, pod: Pod) -> None:
        """Forget a pod."""
        uid, key = pod.metadata.uid, pod.key
        if self._pods.pop(uid, None) is None:
            return
        await self._pusher.drop(key)
        self._live.discard(key)
        self._issuer.unregister(uid)
        self._publish(self._compiler.set_identity(key, None))

    async def synced(self, timeout: float) -> None:
        """Wait until every live sidecar acknowledged all that was applied so far, at most `timeout` seconds."""
        waiting = [asyncio.ensure_future(self._pusher.synced(key)) for key in self._live]
        if not waiting:
            return
        done, late = await asyncio.wait(waiting, timeout=timeout)
        for task in late:
            task.cancel()
        await asyncio.gather(*done, *late, return_exceptions=True)

    async def _configure_after_step(self, settings: MeshSettings) -> None:
        await self.synced(_STEP_SECONDS)
        if self._settings is settings:
            self._publish(self._compiler.configure(settings))

    def _publish(self, touched: Touched) -> None:
        self._pusher.changed(self._compiler.sidecars(touched))

    def _rotated(self, uid: str, identity: Identity) -> None:
        if key := self._pods.get(uid):
            self._publish(self._compiler.set_identity(key, identity))

    async def _await_first_state(self, key: ObjectKey) -> None:
        while key not in self._live:
            try:
                await self._pusher.synced(key)
                self._live.add(key)
            except StateRefusedError:
                await asyncio.sleep(_REFUSED_SECONDS)

    def _refused(self, error: StateRefusedError) -> None:
        self._warn(error.pod, "StateRefused", str(error))

    def _warn_about(self, keys: Iterable[ObjectKey]) -> None:
        for key in tuple(keys):
            warnings = self._compiler.warnings.get(key, ())
            for warning in warnings:
                if warning not in self._warned.get(key, ()):
                    self._warn(key, f"Upsert{key.kind}Failed", f"{warning.field}: {warning.reason}")
            if warnings:
                self._warned[key] = warnings
            else:
                self._warned.pop(key, None)

    def _spawn(self, coroutine: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
