"""Homework 1: generation algorithms."""
