"""Facts about an authority and the identities that it issues: asking for them, and telling them in words."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from nginx_mesh.cli.errors import Failure
from nginx_mesh.cli.table import Resource, duration, left, render

from .options import IdentitySource

_POLL_SECONDS = 0.3
# For how long after a CA begins to sign there may be SVIDs of the one before, as agents spread their renewals.
_REPLACED_SECONDS = 60.0
_SHORT = 8

Row = tuple[str, ...]


def fetch(source: IdentitySource) -> Resource:
    """Return what there is to know of a source.

    `authority` is None when it is elsewhere, `provider` is None without a mesh, `identities` has a row for each pod and
    for each other entry. Raises as the control plane does.
    """
    provider = None if source.mesh is None else source.mesh.identity_provider()
    pods = [] if source.mesh is None else source.mesh.identities()
    authority: Resource | None = None
    entries: list[Resource] = []
    if provider is None or provider["provider"] == "embedded":
        authority = source.authority.facts()
        entries = authority.pop("entries")
    return {"authority": authority, "provider": provider, "identities": _identities(entries, pods)}


def text(found: Resource, now: float, *, wide: bool = False) -> str:
    """Return in words what `fetch` found; `now` is seconds since the epoch, `wide` adds columns."""
    authority, provider = found["authority"], found["provider"]
    head = _authority_head(authority) if authority is not None else _provider_head(provider)
    width = max(len(title) for title, _ in head) + 2
    parts = ["\n".join(f"{title + ':':<{width}}{value}" for title, value in head)]
    if authority is not None:
        parts.append(render(list(_cas(authority, now, wide=wide))))
    local = provider is not None
    if found["identities"]:
        parts.append(render(list(_table(found["identities"], now, local=local, wide=wide))))
    else:
        parts.append("No workloads are registered.")
    return "\n\n".join(parts)


def agents(found: Iterable[Resource], now: float) -> list[Row]:
    """Return the table of attested agents; `now` is seconds since the epoch."""
    rows: list[Row] = [("NAME", "ATTESTATION", "REGISTRAR", "EXPIRES IN", "STATUS")]
    for each in found:
        status = "Banned" if each["banned"] else "Expired" if each["not_after"] <= now else "Attested"
        name = each["spiffe_id"].rpartition("/")[2]
        rows.append((name, each["attestation"], _yes(each["registrar"]), left(each["not_after"], now), status))
    return rows


def federations(found: Iterable[Resource]) -> list[Row]:
    """Return the table of federated trust domains."""
    rows: list[Row] = [("TRUST DOMAIN", "PROFILE", "ENDPOINT", "ENDPOINT ID", "ROOTS")]
    for each in found:
        endpoint_id = each["endpoint_spiffe_id"] or "<none>"
        rows.append(
            (each["trust_domain"], each["profile"], each["endpoint_url"], endpoint_id, str(each["authorities"]))
        )
    return rows


def wait_rotated(source: IdentitySource, ca_id: str, activate_at: float) -> Iterator[str]:
    """Wait until a CA signs and no workload of a mesh has an SVID of another; yield each step as it happens.

    Raises Failure when that takes too long.
    """
    deadline = activate_at + _REPLACED_SECONDS
    signing = False
    while True:
        found = fetch(source)
        states = {each["id"]: each["state"] for each in found["authority"]["authorities"]}
        if states.get(ca_id) == "signing" and not signing:
            signing = True
            yield f"CA {ca_id[:_SHORT]} signs"
        held = [each for each in found["identities"] if each["issuer"]]
        old = [each for each in held if each["issuer"] != ca_id]
        if signing and not old:
            yield f"{len(held)} SVIDs are of the new CA"
            return
        if time.time() > deadline:
            raise Failure(
                f"{len(old)} SVIDs are not replaced yet; see `nginx-meshctl identity show`"
                if signing
                else f"CA {ca_id[:_SHORT]} does not sign yet; the log of the authority tells why"
            )
        time.sleep(_POLL_SECONDS)


def _identities(entries: list[Resource], pods: list[Resource]) -> list[Resource]:
    """Join what the authority has registered with what agents hold for pods. An entry's ID is the uid of its pod."""
    by_id = {entry["id"]: entry for entry in entries}
    rows = []
    for pod in pods:
        entry = by_id.pop(pod["uid"], None)
        rows.append({**pod, "id": pod["uid"], "agent": None if entry is None else entry["agent"]})
    for entry in by_id.values():
        svid = entry["svid"] or {"serial": "", "issuer": "", "not_after": 0.0}
        rows.append({**{name: value for name, value in entry.items() if name != "svid"}, **svid})
    return rows


def _authority_head(authority: Resource) -> list[Row]:
    problem: list[Row] = (
        [("Problem", f"the next CA is delayed: {authority['problem']}")] if authority["problem"] else []
    )
    return [
        *problem,
        ("Trust domain", authority["trust_domain"]),
        ("Server", authority["server_id"]),
        ("Upstream", authority["upstream"].removeprefix("upstream authority ")),
        ("Key manager", authority["key_manager"].replace(" key manager", "")),
        ("Datastore", authority["datastore"].replace(" datastore", "", 1)),
        ("SVIDs live", duration(authority["svid_ttl"])),
        ("CAs live", duration(authority["ca_ttl"])),
    ]


def _provider_head(provider: Resource) -> list[Row]:
    return [
        ("Trust domain", provider["trust_domain"]),
        ("Provider", provider["provider"]),
        ("Authority", provider["address"] or "<unknown>"),
    ]


def _cas(authority: Resource, now: float, *, wide: bool) -> Iterator[Row]:
    yield ("CA", "STATE", "KEY TYPE", "ISSUER", "EXPIRES IN", "NEXT STEP")
    known = authority["authorities"]
    prepared = any(each["state"] == "prepared" for each in known)
    for each in known:
        if each["state"] == "prepared":
            step = f"signs in {duration(each['activate_at'] - now)}"
        else:
            step = "hands over" if prepared else f"successor made in {duration(each['prepare_next_at'] - now)}"
        yield (
            _id(each["id"], wide=wide),
            each["state"],
            each["key_type"],
            each["issuer"],
            left(each["not_after"], now),
            step,
        )
    for each in authority["retired"]:
        yield (_id(each["id"], wide=wide), "retired", "-", "-", left(each["until"], now), "its SVIDs are replaced")


def _table(rows: list[Resource], now: float, *, local: bool, wide: bool) -> Iterator[Row]:
    more: Row = ("SERIAL", "RENEWED IN", "AGENT") if wide else ()
    yield (
        ("NAMESPACE", "POD", "SPIFFE ID", "ISSUER", "EXPIRES IN", "DNS NAMES", *more)
        if local
        else (
            "ENTRY",
            "SPIFFE ID",
            "ISSUER",
            "EXPIRES IN",
            "DNS NAMES",
            *more,
        )
    )
    for each in sorted(rows, key=lambda row: (row.get("namespace", "~"), row.get("pod", row["id"]))):
        issued = bool(each["serial"])
        cells: list[str] = (
            [str(each.get("namespace", "<none>")), str(each.get("pod", each["id"]))] if local else [each["id"]]
        )
        cells += [
            each["spiffe_id"],
            _id(each["issuer"], wide=wide) if issued else "<pending>" if local else "<unknown>",
            left(each["not_after"], now) if issued else "-",
            _dns_names(each["dns_names"], wide=wide),
        ]
        if wide:
            renew_at = each.get("renew_at")
            cells += [each["serial"] or "-", left(renew_at, now) if renew_at else "-", each["agent"] or "-"]
        yield tuple(cells)


def _dns_names(names: list[str], *, wide: bool) -> str:
    if not names:
        return "<none>"
    return ",".join(names) if wide or len(names) <= 1 else f"{names[0]} + {len(names) - 1} more..."


def _id(text: str, *, wide: bool) -> str:
    return text if wide else text[:_SHORT]


def _yes(value: Any) -> str:
    return "yes" if value else "no"
