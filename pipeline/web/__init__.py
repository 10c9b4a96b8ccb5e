"""Polite HTTP: responses, retries, robots.txt, opt-out signals, rate limits, two transports."""
