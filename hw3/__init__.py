"""Homework 3: hardware and optimization."""
