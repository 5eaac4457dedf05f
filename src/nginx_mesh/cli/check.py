"""`nginx-meshctl check`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from nginx_mesh.api.errors import one_line

from .errors import Failure
from .manifests import contents

if TYPE_CHECKING:
    from nginx_mesh.lint import Finding


@click.command("check")
@click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    required=True,
    metavar="PATH",
    help="A manifest (YAML or JSON), a directory of manifests, or - for stdin. May be repeated.",
)
@click.option(
    "-n", "--namespace", default="default", show_default=True, help="The namespace of objects that name none."
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Format.")
@click.option("--strict", is_flag=True, help="Fail for warnings as well.")
@click.option(
    "--ignore", "ignored", multiple=True, metavar="CODE", help="Report nothing about this rule. May be repeated."
)
def check(files: Sequence[str], namespace: str, output: str, strict: bool, ignored: Sequence[str]) -> int:
    """Look for mistakes in manifests, all of them together, without a mesh.

    Give it everything that will be in the mesh: an object that others refer to and that is not given counts as missing.
    The exit code is 0 when nothing is wrong, 1 when there are errors (with --strict, or warnings), and 2 when a file
    cannot be read.

    \b
    Examples:
      nginx-meshctl check -f app.yaml -f policies/
      helm template shop | nginx-meshctl check -f - --strict
    """
    from nginx_mesh.lint import RULES, lint

    unknown = sorted(set(ignored) - RULES.keys())
    if unknown:
        raise click.BadParameter(f"there is no rule {unknown[0]}", param_hint="--ignore")
    try:
        manifests = [found for name in files for found in contents(name)]
    except Failure as error:
        raise click.UsageError(error.message) from None
    findings = [finding for finding in lint(manifests, namespace) if finding.rule.code not in ignored]
    click.echo(_as_json(findings) if output == "json" else _as_text(findings))
    fatal = ("error", "warning") if strict else ("error",)
    return int(any(finding.rule.severity in fatal for finding in findings))


def _as_json(findings: Sequence[Finding]) -> str:
    return json.dumps({"findings": [_item(finding) for finding in findings]}, indent=2, ensure_ascii=False)


def _item(finding: Finding) -> dict[str, Any]:
    rule = finding.rule
    return {
        "code": rule.code,
        "severity": rule.severity,
        "file": finding.file,
        "document": finding.document,
        "object": finding.object,
        "field": finding.field,
        "message": finding.message,
        "remedy": rule.remedy,
    }


def _as_text(findings: Sequence[Finding]) -> str:
    lines: list[str] = []
    for finding in findings:
        rule = finding.rule
        where = ": ".join(part for part in (finding.object, finding.field, finding.message) if part)
        lines += [
            one_line(f"{rule.severity} [{rule.code}] {finding.file} document {finding.document}: {where}", 1000),
            f"    {rule.remedy}",
        ]
    return "\n".join([*lines, _summary(findings)])


def _summary(findings: Sequence[Finding]) -> str:
    if not findings:
        return "no findings"
    counts = {name: sum(one.rule.severity == name for one in findings) for name in ("error", "warning", "info")}
    words = {"error": ("error", "errors"), "warning": ("warning", "warnings"), "info": ("hint", "hints")}
    return ", ".join(f"{count} {words[name][count != 1]}" for name, count in counts.items() if count)
