"""An agent that is no more than two environment variables: a name, a pact and a key, given to it by
an operator over HTTP."""

import httpx

from checkrein.server.demo.cast import Part


async def introduce(url: str, token: str, part: Part) -> str:
    """Puts the part's pact in force and gives the agent a key; returns the key. Raises
    httpx.HTTPError."""
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=10) as client:
        text = part.pact.read_text()
        pushed = await client.put(f"/api/v1/pacts/{part.agent}", json={"text": text})
        pushed.raise_for_status()
        body = {"agent": part.agent, "owner": "demo", "room": part.room}
        made = await client.post("/api/v1/agents", json=body)
        if made.status_code == httpx.codes.CONFLICT:  # of an earlier demo on the same data
            made = await client.post(f"/api/v1/agents/{part.agent}/keys", json={})
        made.raise_for_status()
        return str(made.json()["key"])
