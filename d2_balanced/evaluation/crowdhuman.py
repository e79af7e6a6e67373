def evaluate_crowdhuman(*a, **k): raise NotImplementedError
class CrowdHumanMetrics: pass
