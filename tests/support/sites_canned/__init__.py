"""Canned answers of the sites' own APIs, as small as the engines accept them.

One class per site: it registers its hosts on a `Sites` server, and each of its methods
publishes one kind of post and returns the link a member would paste.
"""
