"""Compression methods: how a network becomes smaller, and the steps that a user composes."""
