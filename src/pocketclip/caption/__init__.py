"""Captioning pictures, and how good the captions are."""
