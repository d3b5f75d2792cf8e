"""Folders that other people's programs load: one module for each program, behind one function."""

from __future__ import annotations

from pocketclip.export.hosts.layout import HOSTS, RECORD_FILE, Host, export_for

__all__ = ["HOSTS", "RECORD_FILE", "Host", "export_for"]
