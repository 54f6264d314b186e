"""Where the project lies: one place, whatever folder a test is in."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
