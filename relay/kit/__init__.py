"""The tools: errors, metric instruments, limits, bounded memory, setting values, log lines, vitals, systemd.

Every room but `atproto` may import it; it imports nothing of ours and knows nothing of relays.
"""
