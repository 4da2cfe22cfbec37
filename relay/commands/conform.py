"""`relay conform`: plays the conformance suite against a relay, ours or another, and prints what it keeps.

Everything is done in `relay.conformance`, with threads: nothing here needs the patch for gevent.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from relay.commands.client import EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE, fail

# Known beforehand, so that a relay can be started with it.
DIRECTORY_PORT = 2582


def _settings(_context: click.Context, _option: click.Parameter, lines: tuple[str, ...]) -> dict[str, str]:
    pairs = [line.partition("=") for line in lines]
    if any(not equals or not name for name, equals, _ in pairs):
        raise click.BadParameter("write it as NAME=value")
    return {name: value for name, _, value in pairs}


@click.command("conform")
@click.option("--command", metavar="TEXT", help="Start a relay with this command, such as 'relay serve'.")
@click.option(
    "--env", "settings", multiple=True, callback=_settings, metavar="NAME=VALUE", help="Add to its environment."
)
@click.option("--url", metavar="URL", help="Use a relay that runs on this machine.")
@click.option("--password", metavar="TEXT", help="Its admin password; without one some rules cannot be tested.")
@click.option(
    "--directory-port",
    type=click.IntRange(1, 65535),
    default=DIRECTORY_PORT,
    show_default=True,
    help="With --url: port of the suite's PLC directory, which that relay has to use.",
)
@click.option("--rule", "only", multiple=True, metavar="NAME", help="Only the scenarios of this rule. Repeatable.")
@click.option(
    "--patience",
    type=click.FloatRange(1),
    default=15.0,
    show_default=True,
    help="Seconds to wait for something that must come.",
)
@click.option(
    "--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Write the results there as Markdown."
)
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write them there as JUnit XML.")
@click.option("--name", default="relay", show_default=True, help="Name of this relay in the Markdown.")
def conform(
    command: str | None,
    settings: dict[str, str],
    url: str | None,
    password: str | None,
    directory_port: int,
    only: tuple[str, ...],
    patience: float,
    markdown: Path | None,
    junit: Path | None,
    name: str,
) -> None:
    """Test any relay against the rules of the AT Protocol: fake hosts send events, and its firehose is watched.

    Ends with 0 when no rule is broken, 1 when one is, 2 for wrong options, and 3 when the relay cannot be tested.
    """
    if (command is None) == (url is None):
        fail(EXIT_USAGE, "give either --command or --url")
    from relay.conformance import report
    from relay.conformance.catalogue import all_scenarios
    from relay.conformance.network import Directory
    from relay.conformance.rules import RULES
    from relay.conformance.subject import StartedSubject, Subject, SubjectError
    from relay.conformance.suite import Suite, by_rule
    from relay.conformance.verdict import Verdict

    if unknown := set(only) - RULES.keys():
        fail(EXIT_USAGE, f"there is no rule {sorted(unknown)[0]}; there are {', '.join(RULES)}")
    scenarios = [one for one in all_scenarios() if not only or one.rule in only]
    with ExitStack() as running:
        try:
            directory = Directory(0 if command else directory_port)
        except OSError as error:
            fail(EXIT_USAGE, f"the directory cannot listen on port {directory_port}: {error}")
        directory.start()
        running.callback(directory.stop)
        folder = Path(running.enter_context(TemporaryDirectory(prefix="relay-conform-")))
        starts = count(1)

        def start() -> Subject:
            if command is None:
                return Subject(url or "", password)
            started = StartedSubject(command, folder / str(next(starts)), directory.url, settings)
            started.start()
            return started

        bar = running.enter_context(
            click.progressbar(length=len(scenarios), label="scenarios", file=sys.stderr, width=0)
        )
        try:
            results = by_rule(Suite(directory, start, lambda _: bar.update(1), patience).play(scenarios))
        except (SubjectError, OSError) as error:
            fail(EXIT_UNREACHABLE, f"this relay cannot be tested: {error}")
    for line in report.table(results):
        click.echo(line)
    if markdown:
        markdown.write_text(report.markdown([(name, results)]), encoding="utf-8")
    if junit:
        junit.write_bytes(report.junit(results))
    if any(result.verdict is Verdict.BROKEN for result in results):
        sys.exit(EXIT_REFUSED)
