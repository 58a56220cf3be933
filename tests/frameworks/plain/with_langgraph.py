import os
import sys

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent


@tool
def add(a: int, b: int) -> str:
    """Adds."""
    print("ran add", flush=True)
    return str(a + b)


@tool
def forbidden(what: str) -> str:
    """Deletes."""
    print("ran forbidden", flush=True)
    return f"deleted {what}"


for name in sys.argv[1:]:
    model = ChatOpenAI(model=name, base_url=os.environ["OPENAI_BASE_URL"], max_retries=0)
    agent = create_react_agent(model, [add, forbidden])
    found = agent.invoke({"messages": [{"role": "user", "content": "go"}]})
    print("said", found["messages"][-1].content)
