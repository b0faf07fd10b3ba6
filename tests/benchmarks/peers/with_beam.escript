#!/usr/bin/env escript
%% -*- erlang -*-
%%! +S 1:1 +sbwt none
%% The BEAM: gen_servers of Erlang/OTP on one scheduler, compiled.

-mode(compile).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(CALLS, 5000).
-define(CALLERS, 100).
-define(CASTS, 20000).
-define(SPAWNS, 500).
-define(RING, 100).
-define(HOPS, 10000).
-define(RESTARTS, 200).
-define(IDLE, 10000).

main([What]) ->
    logger:set_primary_config(level, none),
    Found = case What of
        "times" ->
            [{call, call()}, {callers, callers()}, {cast, cast()},
             {spawn, spawn_and_stop()}, {ring, ring()}, {restart, restart()}];
        "idle" ->
            [{idle, idle()}]
    end,
    Release = "Erlang/OTP " ++ erlang:system_info(otp_release),
    Fields = [io_lib:format(", \"~s\": ~.3f", [Name, Value]) || {Name, Value} <- Found],
    io:format("{\"release\": \"~s\"~s}~n", [Release, Fields]).

%% --- the server, and the supervisor of one ------------------------------------------

init(supervisor) ->
    Crasher = #{id => crasher, start =>
                {gen_server, start_link, [{local, crasher}, ?MODULE, server, []]}},
    {ok, {#{strategy => one_for_one, intensity => 1000000, period => 1}, [Crasher]}};
init(State) ->
    {ok, State}.

handle_call(crash, _From, _State) -> error(asked_to);
handle_call(Request, _From, State) -> {reply, Request, State}.

handle_cast({link, Next, Ender}, _State) -> {noreply, {Next, Ender}};
handle_cast(_Message, State) -> {noreply, State}.

handle_info(0, {_Next, Ender} = State) -> Ender ! done, {noreply, State};
handle_info(Left, {Next, _Ender} = State) -> Next ! Left - 1, {noreply, State}.

%% --- what is measured ---------------------------------------------------------------

us_each(Count, Measured) ->
    Began = erlang:monotonic_time(nanosecond),
    Measured(),
    (erlang:monotonic_time(nanosecond) - Began) / 1000 / Count.

times(0, _Do) -> ok;
times(Count, Do) -> Do(), times(Count - 1, Do).

start() ->
    {ok, Pid} = gen_server:start(?MODULE, server, []),
    Pid.

call() ->
    Pid = start(),
    us_each(?CALLS, fun() -> times(?CALLS, fun() -> gen_server:call(Pid, 1) end) end).

callers() ->
    Pid = start(),
    Each = ?CALLS div ?CALLERS,
    Ask = fun() -> times(Each, fun() -> gen_server:call(Pid, 1) end) end,
    us_each(?CALLS, fun() ->
        Callers = [spawn_monitor(Ask) || _ <- lists:seq(1, ?CALLERS)],
        [receive {'DOWN', Ref, process, _, normal} -> ok end || {_, Ref} <- Callers]
    end).

cast() ->
    Pid = start(),
    us_each(?CASTS, fun() ->
        times(?CASTS, fun() -> gen_server:cast(Pid, 1) end),
        gen_server:call(Pid, 1)
    end).

spawn_and_stop() ->
    us_each(?SPAWNS, fun() -> times(?SPAWNS, fun() -> gen_server:stop(start()) end) end).

ring() ->
    [First | Rest] = Links = [start() || _ <- lists:seq(1, ?RING)],
    Join = fun(Link, Next) -> gen_server:cast(Link, {link, Next, self()}) end,
    lists:zipwith(Join, Links, Rest ++ [First]),
    us_each(?HOPS, fun() -> First ! ?HOPS, receive done -> ok end end).

restart() ->
    {ok, _} = supervisor:start_link(?MODULE, supervisor),
    us_each(?RESTARTS, fun() -> times(?RESTARTS, fun crash_and_ask/0) end).

crash_and_ask() ->
    {'EXIT', _} = (catch gen_server:call(crasher, crash)),
    until_registered(),
    gen_server:call(crasher, alive).

until_registered() ->
    case whereis(crasher) of
        undefined -> erlang:yield(), until_registered();
        _ -> ok
    end.

idle() ->
    Before = resident_bytes(),
    Servers = [start() || _ <- lists:seq(1, ?IDLE)],
    (resident_bytes() - Before) / length(Servers).

resident_bytes() ->
    erlang:garbage_collect(),
    {ok, Status} = file:read_file("/proc/self/status"),
    {match, [KiB]} = re:run(Status, "VmRSS:\\s+(\\d+)", [{capture, [1], list}]),
    list_to_integer(KiB) * 1024.
