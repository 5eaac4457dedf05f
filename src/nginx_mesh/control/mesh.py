"""The mesh itself: from objects to the state of every sidecar on this machine."""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from math import inf
from pathlib import Path

import msgspec

from nginx_mesh.api.core import Pod
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.spiffe import workload_id
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Event, Upsert
from nginx_mesh.catalog.records import Workload
from nginx_mesh.compile.check import ObjectWarning
from nginx_mesh.compile.dnsnames import DnsNames
from nginx_mesh.compile.engine import Compiler, Touched
from nginx_mesh.compile.reach import Enforcement, Force
from nginx_mesh.identity.agent.provider import IdentityProvider
from nginx_mesh.inject import probes
from nginx_mesh.node.push import Pusher, Standing, StateRefusedError
from nginx_mesh.protocol.state import Identity, Probe, StateEntry

log = logging.getLogger(__name__)

# How soon a sidecar that refused its first state is looked at again.
_REFUSED_SECONDS = 1.0
# How long sidecars may take for the step between off and strict; one that is down must not hold up the others.
_STEP_SECONDS = 2.0

Warn = Callable[[ObjectKey, str, str], None]


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


@dataclass(frozen=True, slots=True)
class _Pod:
    """A pod with an identity. `identified` is set once it has one, or has gone."""

    uid: str
    account: str
    sidecar: bool
    identified: asyncio.Event


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A pod's sidecar. `live` once it had a state; `standing` is None while there is no identity to give it."""

    pod: ObjectKey
    uid: str
    live: bool
    standing: Standing | None


class Mesh:
    """Follows objects, and keeps the sidecars of meshed pods at the newest state.

    `objects` are those there are at the start. `identities` gives pods their SVIDs. `control_socket` tells where the
    sidecar of the pod with a uid listens.
    `warn(key, reason, message)` hears what is wrong with objects, and of sidecars that refuse their state;
    `policies_moved(keys)` of policies whose `standing` may be another, `live(uid)` of pods whose sidecar has its first
    state.
    """

    def __init__(
        self,
        objects: Iterable[Object],
        settings: MeshSettings,
        identities: IdentityProvider,
        *,
        control_socket: Callable[[str], Path],
        warn: Warn,
        policies_moved: Callable[[AbstractSet[ObjectKey]], None] = lambda _: None,
        live: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._control_socket = control_socket
        self._warn = warn
        self._policies_moved = policies_moved
        self._tell_live = live
        self._identities = identities
        self._settings = settings
        self._keys: dict[str, ObjectKey] = {}
        self._pods: dict[ObjectKey, _Pod] = {}
        self._live: set[ObjectKey] = set()
        self._warned: dict[ObjectKey, tuple[ObjectWarning, ...]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._catalog = Catalog()
        for obj in objects:
            self._catalog.apply(Upsert(obj))
        # Milliseconds: greater than any version that an earlier daemon gave out.
        self._compiler = Compiler(self._catalog, settings, first_version=time.time_ns() // 1_000_000, probes=_probes)
        self._names = DnsNames(self._catalog)
        self._enforcement = Enforcement(self._catalog, self._compiler)
        self._incomplete: set[ObjectKey] = set()
        self._had: list[float] | None = None
        self._pusher = Pusher(self._compiler.update_for, refused=self._refused, accepted=self._accepted)
        self._warn_about(self._compiler.warnings)

    async def start(self) -> None:
        """Begin to rotate identities."""
        self._spawn(self._identities.run(self._rotated))

    async def close(self) -> None:
        """Stop; the sidecars go on with what they have."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for key, pod in tuple(self._pods.items()):
            pod.identified.set()  # nobody waits for it any longer
            await self._pusher.drop(key)

    def apply(self, event: Event) -> None:
        """Take in a change of any object."""
        changes = self._catalog.apply(event)
        if changes:
            self._publish(self._compiler.apply(changes))
            self._warn_about(changes.objects)
            self._policies_moved(self._enforcement.follow(changes))
            for key in self._names.changed(changes):
                self._register(key)

    def configure(self, settings: MeshSettings) -> None:
        """Apply the mesh's settings, live."""
        previous, self._settings = self._settings, settings
        if {previous.mtls_mode, settings.mtls_mode} == {"off", "strict"}:
            # Callers and callees do not learn of it in the same instant; permissive gets on with either.
            self._configure(msgspec.structs.replace(settings, mtls_mode="permissive"))
            self._spawn(self._configure_after_step(settings))
        else:
            self._configure(settings)

    @property
    def catalog(self) -> Catalog:
        """The mesh as facts. To look at only."""
        return self._catalog

    def own_state(self, pod: ObjectKey) -> Mapping[str, StateEntry]:
        """What the newest state of a pod's sidecar has of its own; empty where there is none."""
        return self._compiler.entries(pod)

    def policies_at(self, pod: ObjectKey) -> AbstractSet[ObjectKey]:
        """The traffic policies that concern a pod's sidecar."""
        return self._enforcement.policies_at(pod)

    def policies(self) -> set[ObjectKey]:
        """Every traffic policy there is."""
        return self._enforcement.policies()

    def standing(self, policy: ObjectKey) -> tuple[Force, int, int] | None:
        """How a policy is in force, on how many sidecars, and how many have it as it is; None when there is none."""
        force = self._enforcement.get(policy)
        if force is None:
            self._incomplete.discard(policy)
            return None
        if force.pods is None:
            had = self._all_had()
            sidecars, updated = len(had), len(had) - bisect_left(had, force.version)
        else:
            sidecars, updated = len(force.pods), sum(self._has(pod) >= force.version for pod in force.pods)
        if updated < sidecars:
            self._incomplete.add(policy)
        else:
            self._incomplete.discard(policy)
        return force, sidecars, updated

    def identify(self, pod: Pod, *, sidecar: bool = False) -> None:
        """Give a pod its identity, from now on."""
        key, account = pod.key, pod.spec.service_account_name or "default"
        self._keys[pod.metadata.uid] = key
        self._pods[key] = _Pod(pod.metadata.uid, account, sidecar, asyncio.Event())
        self._register(key)

    def serve(self, pod: Pod) -> None:
        """Give a meshed pod its identity and, as soon as it has one, its sidecar its state, from now on."""
        key = pod.key
        self.identify(pod, sidecar=True)
        if pod.status.ready:  # it got its state from the daemon before us
            self._live.add(key)
        self._spawn(self._await_first_state(key))

    async def drop(self, pod: Pod) -> None:
        """Forget a pod."""
        key = pod.key
        known = self._pods.get(key)
        if known is None or known.uid != pod.metadata.uid:
            return
        del self._pods[key], self._keys[known.uid]
        known.identified.set()  # who waits for it finds it gone
        await self._pusher.drop(key)
        self._live.discard(key)
        self._names.forget(key)
        self._identities.unregister(known.uid)
        self._publish(self._compiler.set_identity(key, None))

    def control_sockets(self) -> dict[str, Path]:
        """Where live sidecars listen, by the uid of their pods."""
        return {
            pod.uid: self._control_socket(pod.uid)
            for key, pod in self._pods.items()
            if pod.sidecar and key in self._live
        }

    @property
    def version(self) -> int:
        """The version of the newest state."""
        return self._compiler.version

    def state(self, pod: ObjectKey) -> Mapping[str, StateEntry | msgspec.Raw]:
        """The newest state of a pod's sidecar, its private key included; empty when there is none."""
        update = self._compiler.update_for(pod, None)
        return {} if update is None else update.set_

    def sidecars(self) -> Iterator[Sidecar]:
        """Every sidecar, and how far it is."""
        for key, pod in self._pods.items():
            if pod.sidecar:
                yield Sidecar(key, pod.uid, key in self._live, self._pusher.standing(key))

    @property
    def settings(self) -> MeshSettings:
        """The settings in force."""
        return self._settings

    def explain_socket(self, key: ObjectKey) -> Path | None:
        """Where the live sidecar of a pod says what would become of requests; None when there is none."""
        pod = self._pods.get(key)
        if pod is None or not pod.sidecar or key not in self._live:
            return None
        return self._control_socket(pod.uid).with_name("explain.sock")

    def scraped(self) -> list[tuple[Workload, Path]]:
        """Pods with a live sidecar, and where that listens."""
        found = (
            (self._catalog.topology.pod(self._keys[uid]), socket) for uid, socket in self.control_sockets().items()
        )
        return [(pod, socket) for pod, socket in found if pod is not None]

    def workload(self, uid: str) -> tuple[Workload, str] | None:
        """The meshed pod with a uid, and its SPIFFE ID."""
        key = self._keys.get(uid)
        workload = None if key is None else self._catalog.topology.pod(key)
        if key is None or workload is None:
            return None
        return workload, str(workload_id(self._settings.trust_domain, key.namespace, self._pods[key].account))

    async def synced(self, timeout: float) -> None:
        """Wait until every live sidecar acknowledged all that was applied so far, at most `timeout` seconds."""
        waiting = [asyncio.ensure_future(self._acknowledged(key)) for key in self._live]
        if not waiting:
            return
        done, late = await asyncio.wait(waiting, timeout=timeout)
        for task in late:
            task.cancel()
        await asyncio.gather(*done, *late, return_exceptions=True)

    async def _configure_after_step(self, settings: MeshSettings) -> None:
        await self.synced(_STEP_SECONDS)
        if self._settings is settings:
            self._configure(settings)

    def _configure(self, settings: MeshSettings) -> None:
        self._publish(self._compiler.configure(settings))
        self._policies_moved(self._enforcement.follow_settings())

    def _publish(self, touched: Touched) -> None:
        self._had = None
        self._pusher.changed(self._compiler.sidecars(touched))

    def _register(self, key: ObjectKey) -> None:
        pod = self._pods[key]
        spiffe_id = workload_id(self._settings.trust_domain, key.namespace, pod.account)
        self._identities.register(pod.uid, spiffe_id, self._names.follow(key))

    def _rotated(self, uid: str, identity: Identity | None) -> None:
        key = self._keys.get(uid)
        if key is None or not self._pods[key].sidecar:
            return
        self._publish(self._compiler.set_identity(key, identity))
        if identity is not None and not self._pods[key].identified.is_set():
            # Not sooner: a sidecar that an earlier daemon served would lose the identity that it has.
            self._pusher.serve(key, self._control_socket(uid))
            self._pods[key].identified.set()

    async def _acknowledged(self, key: ObjectKey) -> None:
        """Wait until the sidecar has all that was applied so far. Raises KeyError when its pod has gone."""
        await self._pods[key].identified.wait()
        await self._pusher.synced(key)

    async def _await_first_state(self, key: ObjectKey) -> None:
        while key not in self._live:
            try:
                await self._acknowledged(key)
                self._live.add(key)
                self._tell_live(self._pods[key].uid)
            except StateRefusedError:
                await asyncio.sleep(_REFUSED_SECONDS)
            except KeyError:
                return

    def _has(self, pod: ObjectKey) -> float:
        """Up to which version a sidecar has its state; infinity when nothing newer is for it, -1 when not known."""
        acknowledged = self._pusher.acknowledged(pod)
        if acknowledged is None:
            return -1
        return inf if self._compiler.unchanged_since(pod, acknowledged) else acknowledged

    def _all_had(self) -> list[float]:
        """What all sidecars have, sorted. Many policies are looked at between two changes of it."""
        if self._had is None:
            self._had = sorted(map(self._has, self._compiler.sidecars()))
        return self._had

    def _accepted(self, pod: ObjectKey) -> None:
        self._had = None
        self._policies_moved(self._incomplete & self._enforcement.policies_at(pod))

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
