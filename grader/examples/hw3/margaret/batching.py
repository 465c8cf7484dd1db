class Scheduler(Scheduler):
    def schedule(self):
        return Step(super().schedule().chunks, [])  # does not tell who was preempted
