"""What a server tells Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from final_project.interface import Stats

SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50]


class Metrics:
    """One server's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.waiting = Gauge("requests_waiting", "Sequences in the queue", registry=registry)
        self.running = Gauge("requests_running", "Sequences in the batch", registry=registry)
        self.cache_usage = Gauge("cache_usage_ratio", "Part of the KV cache in use", registry=registry)
        self.prompt_tokens = Counter("prompt_tokens", "Tokens of prompts", registry=registry)
        self.generated_tokens = Counter("generated_tokens", "Tokens of answers", registry=registry)
        self.responses = Counter("responses", "Answers by HTTP status", ["status"], registry=registry)
        self.time_to_first_token = Histogram(
            "time_to_first_token_seconds", "From arrival to first token", registry=registry, buckets=SECONDS
        )
        self.time_per_output_token = Histogram(
            "time_per_output_token_seconds", "Between tokens, mean of a sequence", registry=registry, buckets=SECONDS
        )

    def observe_engine(self, stats: Stats) -> None:
        """Note what the engine is busy with."""
        self.waiting.set(stats.waiting)
        self.running.set(stats.running)
        self.cache_usage.set(stats.cache_usage)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
