"""Crawled pictures that can be searched: written while they are matched, merged, memory-mapped, voted on and verified."""
