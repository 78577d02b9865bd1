"""``fastgan info``."""

from __future__ import annotations

import json
import platform

import click


@click.command("info")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> None:
    """Show versions, devices, and which backends run here and why the others don't."""
    from fastgan.kernels.common import backends, threads
    from fastgan.training import versions

    def state(name: str) -> str:
        reason = backends.why_not(name)
        return "runs here" if reason is None else f"does not run here: {reason}"

    versions_here = versions()
    states = {name: state(name) for name in backends.NAMES if name != "auto"}
    report = {
        "versions": versions_here,
        "system": platform.platform(),
        "cores": threads.available_cores(),
        "auto": backends.resolve("auto"),
        "backends": states,
    }
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    for name, version in versions_here.items():
        click.echo(f"{name:12} {version}")
    click.echo(f"{'system':12} {report['system']}, {report['cores']} cores for this process")
    for name, text in states.items():
        click.echo(f"{name:12} {text}{', and is what auto takes' if name == report['auto'] else ''}")
