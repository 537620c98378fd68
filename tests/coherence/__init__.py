"""Processes that read through their near caches and write at random: is what they read ever older than promised?"""
