"""The server: search over HTTP, and the page. Needs the extra `serve`."""

from __future__ import annotations

from pocketclip.search.server.app import create_app
from pocketclip.search.server.config import Limits, ServerConfig, made_up_token
from pocketclip.search.server.run import serve

__all__ = ["Limits", "ServerConfig", "create_app", "made_up_token", "serve"]
