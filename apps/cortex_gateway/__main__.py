"""`python -m cortex_gateway` is the `cortex` command."""

from cortex_gateway.cli import main

main()
