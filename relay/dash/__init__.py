"""The page for people at `/dash/`: server-rendered, for admins only, nothing but forms and links without its script.

Reads what the rest of the relay knows, and changes it through `admin` alone.
"""
