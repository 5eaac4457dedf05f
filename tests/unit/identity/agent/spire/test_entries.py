from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.agent.spire import entry_pb2 as pb
from nginx_mesh.identity.agent.spire.entries import SERVICE, Entry, EntryClient, Selector, SpireError

from .standin import EntryServer

PARENT = SpiffeId("spire.test", "/spire/agent/a")
SELECTORS = frozenset([Selector("unix", "uid:0")])


@pytest.fixture
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EntryServer]:
    yield EntryServer("spire.test", page=7)


@pytest.fixture
async def client(api: EntryServer) -> AsyncIterator[EntryClient]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((api.handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield EntryClient(channel)
    await server.stop(None)


def entry(number: int) -> Entry:
    spiffe_id = SpiffeId("spire.test", f"/w/{number}")
    return Entry(f"e-{number:04}", spiffe_id, PARENT, SELECTORS, ("a.x", f"n{number}"), frozenset(["p.test"]), 60)


async def test_more_entries_than_fit_one_page_or_one_request(api: EntryServer, client: EntryClient) -> None:
    entries = [entry(number) for number in range(450)]
    assert await client.create(entries) == {}
    assert api.calls.count("BatchCreateEntry") == 3
    api.entries["other"] = pb.Entry(id="other", parent_id=pb.SPIFFEID(trust_domain="spire.test", path="/else"))
    assert await client.of_parent(PARENT) == entries
    assert await client.delete([e.entry_id for e in entries]) == {}
    assert await client.of_parent(PARENT) == []


async def test_doing_it_twice_does_no_harm(client: EntryClient) -> None:
    assert await client.create([entry(1)]) == {}
    assert await client.create([entry(1)]) == {}
    assert await client.delete(["e-0001"]) == {}
    assert await client.delete(["e-0001"]) == {}


async def test_each_refusal_is_told_with_its_reason_and_stops_no_other(client: EntryClient) -> None:
    foreign = Entry("foreign", SpiffeId("elsewhere.test", "/w"), PARENT, SELECTORS)
    refused = await client.create([entry(1), foreign, entry(2)])
    assert refused.keys() == {"foreign"}
    assert "not a member of trust domain" in refused["foreign"]
    assert [found.entry_id for found in await client.of_parent(PARENT)] == ["e-0001", "e-0002"]
    assert await client.update([entry(1), entry(3)]) == {"e-0003": "record not found"}


async def test_entries_that_are_not_spiffe_are_passed_over(api: EntryServer, client: EntryClient) -> None:
    parent = pb.SPIFFEID(trust_domain="spire.test", path=PARENT.path)
    api.entries["old"] = pb.Entry(
        id="old", spiffe_id=pb.SPIFFEID(trust_domain="spire.test", path="/a b"), parent_id=parent
    )
    await client.create([entry(1)])
    assert await client.of_parent(PARENT) == [entry(1)]


async def test_a_server_that_answers_nonsense(api: EntryServer, client: EntryClient, monkeypatch: Any) -> None:
    monkeypatch.setattr(api, "BatchCreateEntry", lambda _: pb.BatchCreateEntryResponse())
    with pytest.raises(SpireError, match="BatchCreateEntry: 0 results for 1 entries"):
        await client.create([entry(1)])
    endless = pb.ListEntriesResponse(next_page_token="again")  # noqa: S106 - it is no password
    monkeypatch.setattr(api, "ListEntries", lambda _: endless)
    monkeypatch.setattr("nginx_mesh.identity.agent.spire.entries._MAX_PAGES", 5)
    with pytest.raises(SpireError, match="more than 5 pages"):
        await client.of_parent(PARENT)


async def test_errors_name_method_and_status(tmp_path: Path) -> None:
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/nobody") as channel:
        with pytest.raises(SpireError, match="ListEntries: UNAVAILABLE"):
            await EntryClient(channel).of_parent(PARENT)


async def test_garbage_is_an_error_of_the_server() -> None:
    handler: Any = grpc.unary_unary_rpc_method_handler(answer_garbage)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"ListEntries": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(SpireError, match="ListEntries: the answer is malformed"):
            await EntryClient(channel).of_parent(PARENT)
    await server.stop(None)


async def answer_garbage(_request: bytes, _call: Callable[..., Any]) -> bytes:
    return b"\xff" * 1000
