"""The resident decision service: whoever cannot be stood before is told what it may do.

Other languages, hooks and other gateways ask over HTTP or the gateway's Unix socket; what is asked
is judged, held, approved and recorded like a call that passes here.
"""
