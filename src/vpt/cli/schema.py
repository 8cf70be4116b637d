"""The command `vpt schema`."""

import click

from vpt.cli.options import json_option, print_json, print_result


@click.command()
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """Print the JSON Schema NAME of what commands print with --json, or list all schemas.

    \b
    vpt schema
    vpt schema evaluation > evaluation.schema.json
    """
    from vpt.schemas import read_schema, schema_names

    if name is not None:
        print_json(read_schema(name))
        return
    schemas = {each: read_schema(each) for each in schema_names()}
    rows = {
        each: {
            "id": schema["$id"],
            "title": schema["title"],
            "commands": schema["x-commands"],
        }
        for each, schema in schemas.items()
    }
    width = max(map(len, rows))
    lines = (
        f"{each:<{width}}  {', '.join(row['commands']) or '--events'}: {row['title']}" for each, row in rows.items()
    )
    print_result(as_json, rows, lines)
