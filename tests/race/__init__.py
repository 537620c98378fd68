"""Readers and writers in many processes on one Redis: does anybody ever get a value that was invalidated before?"""
