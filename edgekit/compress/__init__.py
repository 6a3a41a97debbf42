"""Compression: Graph -> smaller Graph, each step proven on the native runtime."""
