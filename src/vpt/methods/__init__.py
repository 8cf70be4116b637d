"""The methods: one file each, listed in the catalogue."""

from vpt.methods.registry import *  # noqa: F403 (it lists what it exports)
