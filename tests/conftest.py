"""Puts `forms` on the path of every test."""
