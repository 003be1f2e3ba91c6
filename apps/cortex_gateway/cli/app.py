"""The table of commands of `cortex`."""

import typer

from cortex_core.commands import EXIT_CODES, reporting
from cortex_gateway.cli import (
    chat,
    daemon,
    explain,
    fleet,
    keys,
    logs,
    policy,
    requests,
    simulate,
    top,
)

app = typer.Typer(
    name="cortex",
    help="One API in front of every GPU you own.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a log wants a plain trace
)
config = typer.Typer(help="The configuration.", epilog=EXIT_CODES, no_args_is_help=True)
policies = typer.Typer(help="Policies of your own.", epilog=EXIT_CODES, no_args_is_help=True)
access = typer.Typer(help="Keys of those who may ask.", epilog=EXIT_CODES, no_args_is_help=True)


@policies.callback()
def _policies() -> None:
    """Keep `check` a command of its own, though it is the only one."""


for command in (daemon.serve, daemon.up, fleet.status, fleet.models, fleet.load, fleet.unload):
    app.command(epilog=EXIT_CODES)(reporting(command))
app.command(epilog=EXIT_CODES)(reporting(requests.ps))
app.command(epilog=EXIT_CODES)(reporting(requests.cancel))
app.command(epilog=EXIT_CODES)(reporting(top.top))
app.command(epilog=EXIT_CODES)(reporting(logs.logs))
app.command(epilog=EXIT_CODES)(reporting(chat.chat))
app.command(epilog=EXIT_CODES)(reporting(explain.explain))
app.command(epilog=EXIT_CODES)(reporting(simulate.simulate))
app.command(epilog=EXIT_CODES)(reporting(daemon.version))
config.command(epilog=EXIT_CODES)(reporting(daemon.check))
app.add_typer(config, name="config")
policies.command(epilog=EXIT_CODES)(reporting(policy.check))
app.add_typer(policies, name="policy")
access.command(epilog=EXIT_CODES)(reporting(keys.create))
access.command("list", epilog=EXIT_CODES)(reporting(keys.show))
access.command(epilog=EXIT_CODES)(reporting(keys.revoke))
app.add_typer(access, name="keys")
