"""Pure vocabulary: no IO, no asyncio, no clock reads."""
