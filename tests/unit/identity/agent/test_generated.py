import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[4] / "src"
GENERATED = sorted(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*_pb2.py"))


@pytest.mark.parametrize("name", GENERATED)
def test_generated_code_is_that_of_the_proto_file(name: str, tmp_path: Path) -> None:
    proto = name.replace("_pb2.py", ".proto")
    options = ["-I", str(SOURCE), f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options, proto], check=True, cwd=SOURCE, timeout=60)
    for made in (name, f"{name}i"):
        assert (tmp_path / made).read_text() == (SOURCE / made).read_text(), f"{made}: run `make proto`"
