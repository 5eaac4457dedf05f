from pathlib import Path
from typing import Any

import pytest
import yaml

from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.agent.config import SpireSection
from nginx_mesh.identity.agent.spire.entries import Selector
from nginx_mesh.identity.agent.spire.setup import entry_settings, spire_provider
from nginx_mesh.identity.config import read_config

SOUND = {
    "agentSocket": "/run/spire/agent.sock",
    "serverSocket": "server.sock",
    "parentID": "spiffe://example.org/spire/agent/a",
    "selectors": ["unix:uid:0", "unix:path:/usr/bin/mesh"],
    "federatesWith": ["partner.test"],
}


def section(directory: Path, **changes: Any) -> SpireSection:
    spire = {name: value for name, value in (SOUND | changes).items() if value is not None}
    file = directory / "identity.yaml"
    file.write_text(yaml.safe_dump({"identity": {"provider": "spire", "spire": spire}}))
    found = read_config(file).identity.spire
    assert found is not None
    return found


def test_a_sound_configuration(tmp_path: Path) -> None:
    found = section(tmp_path)
    assert (found.agent_socket, found.server_socket) == ("/run/spire/agent.sock", f"{tmp_path}/server.sock")
    settings = entry_settings(found, "example.org", 60)
    assert settings.parent_id == SpiffeId("example.org", "/spire/agent/a")
    assert settings.selectors == {Selector("unix", "uid:0"), Selector("unix", "path:/usr/bin/mesh")}
    assert settings.federates_with == {"partner.test"}
    assert (settings.svid_ttl, settings.prefix) == (60, "nginx-mesh")
    spire_provider(found, "example.org", 60)
    admin = "spiffe://example.org/mesh"
    spire_provider(section(tmp_path, serverSocket=None, serverAddress="spire:8081", adminID=admin), "example.org", 60)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"agentSocket": None}, "identity.spire"),
        ({"unknown": 1}, "identity.spire"),
        ({"selectors": []}, "identity.spire.selectors"),
        ({"selectors": ["unix:uid:0", "root"]}, "identity.spire.selectors[1]"),
        ({"parentID": "example.org"}, "identity.spire.parentID"),
        ({"parentID": "spiffe://example.org"}, "identity.spire.parentID"),
        ({"parentID": "spiffe://other.test/spire/agent/a"}, "identity.spire.parentID"),
        ({"federatesWith": ["Partner"]}, "identity.spire.federatesWith[0]"),
        ({"entryPrefix": "a b"}, "identity.spire.entryPrefix"),
        ({"serverSocket": None}, "identity.spire"),
        ({"serverAddress": "spire:8081"}, "identity.spire"),
        ({"adminID": "spiffe://example.org/mesh"}, "identity.spire.adminID"),
        ({"serverSocket": None, "serverAddress": "spire:8081"}, "identity.spire.adminID"),
        (
            {"serverSocket": None, "serverAddress": "spire", "adminID": "spiffe://example.org/mesh"},
            "identity.spire.serverAddress",
        ),
        (
            {"serverSocket": None, "serverAddress": "spire:8081", "adminID": "spiffe://other.test/mesh"},
            "identity.spire.adminID",
        ),
    ],
    ids=str,
)
def test_an_error_names_the_field(changes: dict[str, Any], field: str, tmp_path: Path) -> None:
    with pytest.raises(FieldError) as raised:
        spire_provider(section(tmp_path, **changes), "example.org", 60)
    assert str(raised.value).startswith(field)


@pytest.mark.parametrize(
    "identity",
    [{"provider": "spire"}, {"provider": "embedded", "spire": SOUND}, {"provider": "server", "spire": SOUND}],
)
def test_the_section_goes_with_its_provider(identity: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "identity.yaml").write_text(yaml.safe_dump({"identity": identity}))
    with pytest.raises(FieldError, match=r"identity\.(spire|server)"):
        read_config(tmp_path / "identity.yaml")
