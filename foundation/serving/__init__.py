"""Asking what was trained: from files, over HTTP, and as vectors of sentences; several tasks at once on one encoder."""
