"""An MCP server for tests: ``python -m tests.mcp_server FILE [PORT]``, over stdio, or HTTP where a port is given.

Each item that was asked for is a line of the file.
"""

import sys
from pathlib import Path

from mcp.server import MCPServer

server = MCPServer("shop")


@server.tool()
def price(item: str) -> float:
    """Return the price of an item."""
    with Path(sys.argv[1]).open("a") as asked:
        asked.write(f"{item}\n")
    return {"pen": 2.5}[item]


if __name__ == "__main__":
    if len(sys.argv) > 2:
        server.run(transport="streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
    else:
        server.run()
