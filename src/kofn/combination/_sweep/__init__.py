"""The driver that reads, blends and writes checkpoints block by block."""
