"""``convattn doctor``."""

__all__ = ["doctor"]


def doctor() -> None:
    """Show what convattn finds on this machine: device, kernels, memory, versions, and what is missing."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from convattn.diagnosis import diagnose

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for finding in diagnose():
        table.add_row(finding.name, escape(finding.value))
    Console().print(table)
