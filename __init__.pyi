"""Types of the names that `__init__.py` loads lazily."""

from .lang.api import assistant as assistant
from .lang.api import assistant_begin as assistant_begin
from .lang.api import assistant_end as assistant_end
from .lang.api import flush_cache as flush_cache
from .lang.api import function as function
from .lang.api import gen as gen
from .lang.api import gen_int as gen_int
from .lang.api import gen_string as gen_string
from .lang.api import get_server_info as get_server_info
from .lang.api import image as image
from .lang.api import role as role
from .lang.api import select as select
from .lang.api import set_default_backend as set_default_backend
from .lang.api import system as system
from .lang.api import system_begin as system_begin
from .lang.api import system_end as system_end
from .lang.api import tool as tool
from .lang.api import user as user
from .lang.api import user_begin as user_begin
from .lang.api import user_end as user_end
from .lang.api import video as video
from .lang.backends.endpoint import RuntimeEndpoint as RuntimeEndpoint
from .lang.backends.engine import Engine as Engine
from .lang.backends.openai import OpenAI as OpenAI
from .lang.backends.server import Runtime as Runtime
from .lang.choices import ChoicesDecision as ChoicesDecision
from .lang.choices import greedy_token_selection as greedy_token_selection
from .lang.choices import token_length_normalized as token_length_normalized
from .lang.choices import unconditional_likelihood_normalized as unconditional_likelihood_normalized
from .lang.explain import Explanation as Explanation
from .lang.program import Program as Program
from .lang.state import ProgramState as ProgramState
from .lang.state import ProgramStateGroup as ProgramStateGroup
from .lang.tool_loop import arun_tools as arun_tools
from .lang.tool_loop import run_tools as run_tools
from .lang.tools import Call as Call
from .lang.tools import ToolAnswer as ToolAnswer
from .lang.trace import Plan as Plan
from .runtime import errors as errors
from .runtime.errors import Aborted as Aborted
from .runtime.errors import AuthenticationFailed as AuthenticationFailed
from .runtime.errors import ConstraintError as ConstraintError
from .runtime.errors import ContextLengthExceeded as ContextLengthExceeded
from .runtime.errors import DeadlineExceeded as DeadlineExceeded
from .runtime.errors import EngineError as EngineError
from .runtime.errors import InvalidRequest as InvalidRequest
from .runtime.errors import ModelError as ModelError
from .runtime.errors import ModelNotFound as ModelNotFound
from .runtime.errors import Overloaded as Overloaded
from .runtime.errors import PermissionDenied as PermissionDenied
from .runtime.errors import RamifyError as RamifyError
from .runtime.errors import TooManyRequests as TooManyRequests
from .runtime.protocol import SamplingParams as SamplingParams

__version__: str
__all__: list[str]
