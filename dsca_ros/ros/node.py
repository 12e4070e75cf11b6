"""The node: depth_sr/image_raw, camera_info and points from depth/image_raw and camera_info.

A lifecycle node that configures and activates itself unless told not to. Configuring loads the network, activating
subscribes to the camera while someone listens to a result, deactivating lets go of the camera and keeps the network,
cleaning up frees everything.
"""

from __future__ import annotations

import copy
import functools
import threading
import time
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from dsca_ros.engine.base import EngineError
from dsca_ros.engine.factory import check_engine
from dsca_ros.engine.starting import BUILDING, FAILED, RUNNING
from dsca_ros.ros import parameters
from dsca_ros.ros.camera_infos import CameraInfos, stamp_of
from dsca_ros.ros.diagnostics import Health
from dsca_ros.ros.parameters import Settings
from dsca_ros.ros.pipeline import Outputs, Pipeline
from dsca_ros.ros.qos import INPUT_QOS, OUTPUT_QOS, publisher_events, subscription_events
from dsca_ros.ros.run import ClosableNode, run
from dsca_ros.upsampler import Upsampler

#: The same warning is logged at most once in this time, seconds.
WARN_PERIOD = 5.0
#: What image_transport adds to the name of an image's topic.
COMPRESSED = "/compressedDepth"

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE

Transition = Callable[["DscaNode", LifecycleState], TransitionCallbackReturn]


def _told(transition: Transition) -> Transition:
    """A transition that tells what it raises: rclpy makes an error of it and keeps the reason to itself."""

    @functools.wraps(transition)
    def told(node: DscaNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception as error:
            node._tell_failure(f"{transition.__name__} failed, {type(error).__name__}: {error}")
            return TransitionCallbackReturn.ERROR

    return told


class DscaNode(LifecycleNode, ClosableNode):
    """Publishes super-resolved depth of the camera it subscribes to.

    Args:
        options: passed on to `rclpy.node.Node`, such as ``context`` and ``parameter_overrides``.

    Raises:
        ValueError: if a parameter's initial value is refused.
        EngineError: if it starts itself, and the model or the engine cannot be had.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("dsca_node", **options)
        self.settings = parameters.declare(self)
        self.health = Health(precision=self.settings.precision)
        self.infos = CameraInfos()
        self.pipeline: Pipeline | None = None
        self._failure = ""
        self._started = self._active = False
        self._warned: dict[str, float] = {}
        self._engine_told = ""
        self._outputs: Outputs | None = None
        self._subscriptions_to_camera: list[Subscription] = []
        self._switch: threading.Thread | None = None
        self._switch_lock = threading.Lock()
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._refuse_impossible_transitions()
        self._refuse_unreadable_requests()
        if self.settings.autostart and (self.trigger_configure() != SUCCESS or self.trigger_activate() != SUCCESS):
            self.close()
            raise EngineError(self._failure)
        self._started = True
        # Set last: a request that comes in a half-built node would find nothing to change.
        self.add_on_set_parameters_callback(self._on_parameters)
        # A clock of its own: simulated time may stand still, or start over.
        self._timer = self.create_timer(1.0, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME))
        back = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False)
        self._jumps = self.get_clock().create_jump_callback(back, post_callback=lambda _: self._on_time_jump())

    # --- lifecycle ------------------------------------------------------------------------------

    @_told
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the network and makes the publishers; a failure is told and leaves the node unconfigured."""
        # The publishers first: were one to fail, the network would be left behind.
        self._outputs = Outputs(
            self._publisher(Image, "depth_sr/image_raw"),
            self._publisher(CompressedImage, "depth_sr/image_raw" + COMPRESSED),
            self._publisher(CameraInfo, "depth_sr/camera_info"),
            self._publisher(PointCloud2, "depth_sr/points"),
        )
        try:
            upsampler = self._make_upsampler(self.settings)
        except EngineError as error:
            self._free()
            self._tell_failure(str(error))
            return FAILURE
        self.pipeline = self._make_pipeline(upsampler)
        self._tell_engine()
        return SUCCESS

    @_told
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Takes frames from now on, the first one already through the network that the parameters name."""
        switch = self._switch
        if switch is not None:
            switch.join()
        self._active = True
        self._follow_demand()
        return SUCCESS

    @_told
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Takes no more frames; the network stays loaded."""
        self._active = False
        self._follow_demand()
        if self.pipeline is not None:
            self.pipeline.forget()
        return SUCCESS

    @_told
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees all that configuring made."""
        self._free()
        return SUCCESS

    @_told
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees all, from whatever state."""
        self._free()
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a transition that failed half-way: all is freed, and the node can be configured anew."""
        self._free()
        return SUCCESS

    def _tell_failure(self, text: str) -> None:
        """Logs why a transition failed; a node that fails to start raises it instead."""
        self._failure = text
        if self._started or not self.settings.autostart:
            self.get_logger().error(f"{text}; the node is unconfigured now and can be configured anew")

    def _refuse_impossible_transitions(self) -> None:
        """A transition that the state does not allow is answered with no; rclpy's exception would end the process."""
        change = self._service_change_state.callback

        def refusing(request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
            state = self._state_machine.current_state[1]
            try:
                return change(request, response)
            except RuntimeError:
                self.get_logger().warning(f"refused a transition that there is not from the state {state}")
                response.success = False
                return response

        self._service_change_state.callback = refusing

    def _refuse_unreadable_requests(self) -> None:
        """A request that rclpy cannot read, as of a type that there is not, is refused; its exception would end us."""
        for service in self.services:
            service.callback = self._answering(service.callback)

    def _answering(self, callback: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def answering(request: Any, response: Any) -> Any:
            try:
                return callback(request, response)
            except Exception as error:  # whatever rclpy makes of it: the next request gets its chance
                reason = f"refused a request that cannot be read, {type(error).__name__}: {error}"
                self._warn("request", reason)
                refused = SetParametersResult(successful=False, reason=reason)
                if isinstance(request, SetParameters.Request):
                    response.results = [refused] * len(request.parameters)
                elif isinstance(request, SetParametersAtomically.Request):
                    response.result = refused
                return response

        return answering

    def _free(self) -> None:
        self._active = False
        self._follow_demand()
        with self._switch_lock:
            pipeline, self.pipeline = self.pipeline, None
        if pipeline is not None:
            pipeline.close()
        outputs, self._outputs = self._outputs, None
        if outputs is not None:
            for publisher in vars(outputs).values():
                self.destroy_publisher(publisher)
        self.infos.clear()
        self._engine_told = ""
        self.health.freed()

    def _make_pipeline(self, upsampler: Upsampler) -> Pipeline:
        assert self._outputs is not None
        return Pipeline(
            *(upsampler, self.settings, self._outputs, self.infos, self.health, self._warn),
            now=lambda: self.get_clock().now().nanoseconds * 1e-9,
        )

    def _make_upsampler(self, settings: Settings) -> Upsampler:
        # Results are copied into messages before the next frame: no need of memory of their own.
        return Upsampler(
            *(settings.model, settings.scale, settings.engine, settings.precision, settings.threads),
            background=True,
            warm_start=settings.warm_start and not settings.build_only,
            share_memory=True,
        )

    # --- topics ---------------------------------------------------------------------------------

    def _publisher(self, kind: type, topic: str) -> Publisher:
        events = publisher_events(topic, lambda text: self._warn(f"qos {topic}", text), self._follow_demand)
        overrides = QoSOverridingOptions.with_default_policies()
        qos = copy.copy(OUTPUT_QOS)  # rclpy writes overrides into the profile it is given
        return self.create_publisher(kind, topic, qos, event_callbacks=events, qos_overriding_options=overrides)

    def _subscription(self, kind: type, topic: str, callback: Callable[[Any], None]) -> Subscription:
        events = subscription_events(topic, lambda text: self._warn(f"qos {topic}", text))
        overrides = QoSOverridingOptions.with_default_policies()
        return self.create_subscription(
            kind, topic, callback, copy.copy(INPUT_QOS), event_callbacks=events, qos_overriding_options=overrides
        )

    def _follow_demand(self) -> None:
        """Subscribes to the camera while someone listens, and lets go of it after."""
        s, outputs = self.settings, self._outputs
        always = not s.lazy or s.build_only
        wanted = self._active and outputs is not None and (always or outputs.any_listener(s.publish_points))
        if wanted and not self._subscriptions_to_camera:
            self.health.listening()
            self.infos.clear()  # the camera may have another profile by now
            raw = s.depth_transport == "raw"
            kind, topic = (Image, "depth/image_raw") if raw else (CompressedImage, "depth/image_raw" + COMPRESSED)
            # One by one: were the second to fail, the first would be left behind.
            self._subscriptions_to_camera.append(self._subscription(kind, topic, self._on_image))
            info = self._subscription(CameraInfo, "depth/camera_info", self._on_camera_info)
            self._subscriptions_to_camera.append(info)
        elif not wanted:
            self._let_go()

    def _let_go(self) -> None:
        for subscription in self._subscriptions_to_camera:
            self.destroy_subscription(subscription)
        self._subscriptions_to_camera.clear()

    def _on_image(self, image: Image | CompressedImage) -> None:
        self.health.received()
        if self.pipeline is not None:
            self.pipeline.put(image)

    def _on_camera_info(self, info: CameraInfo) -> None:
        if self.infos.add(info):
            self._warn("time_jump", f"time went back to {stamp_of(info)[0]} s: camera infos are forgotten")

    def _on_time_jump(self) -> None:
        """A bag that loops, or a clock that was set: what waits is of another time."""
        self.infos.clear()
        if self.pipeline is not None:
            self.pipeline.forget()
        self._warn("time_jump", "the clock went back: buffers cleared")

    def _on_timer(self) -> None:
        if self.pipeline is not None:
            self._tell_engine()
            self._watch(self.pipeline)
        self._count_cameras()
        # Matched events do the same at once, where the distribution has them.
        self._follow_demand()
        name = self.get_fully_qualified_name()
        stamp = self.get_clock().now().to_msg()
        self.health.lifecycle = self._state_machine.current_state[1]
        self._diagnostics.publish(self.health.array(name, stamp, bool(self._subscriptions_to_camera)))
        if self.settings.build_only and self.pipeline is not None:
            self._end_when_built(self.pipeline.upsampler)

    def _end_when_built(self, upsampler: Upsampler) -> None:
        if upsampler.state == BUILDING:
            return
        built = upsampler.state == RUNNING
        text = f"ready: {upsampler.engine}" if built else f"no engine: {upsampler.note}"
        self.get_logger().info(f"build_only: {text}")
        raise SystemExit(0 if built else 1)

    def _tell_engine(self) -> None:
        """Brings what is known of the engine up to date, and logs what is new."""
        assert self.pipeline is not None
        upsampler = self.pipeline.upsampler
        state, note, engine = upsampler.state, upsampler.note, upsampler.engine
        health = self.health
        health.engine, health.device, health.precision = engine, upsampler.device, upsampler.precision
        health.engine_state, health.engine_note = state, note
        what = f"{upsampler.model} x{upsampler.scale}"
        # A failure is told once, and not again with every second that the next try is nearer.
        news = {BUILDING: note, FAILED: note.partition("; next try")[0]}.get(state, engine)
        told = f"{what} {state} {news}"
        # A build begins with a frame: until then there is nothing to tell.
        if told == self._engine_told or (state == BUILDING and not self.pipeline.began):
            return
        self._engine_told = told
        if state == RUNNING:
            self.get_logger().info(f"{what} on {engine}")
        elif state == BUILDING:
            self.get_logger().info(f"{what}: engine is being built ({note}); meanwhile on: {engine}")
        elif state == FAILED:
            self.get_logger().error(f"{what}: the engine failed, {note}; meanwhile on: {engine}")

    def _watch(self, pipeline: Pipeline) -> None:
        """Tells of an engine that does not answer, once in the log, and that it does again."""
        seconds, told = pipeline.overdue(), self.health.hangs
        remedy = "frames are dropped until it does; remedy: wait, or set the parameter engine again, which restarts it"
        self.health.hangs = "" if seconds is None else f"the engine has not answered for {seconds:.0f} s; {remedy}"
        if seconds is not None and not told:
            self.get_logger().error(self.health.hangs)
        elif seconds is None and told:
            self.get_logger().info("the engine answers again")

    def _count_cameras(self) -> None:
        topics = [subscription.topic_name for subscription in self._subscriptions_to_camera]
        self.health.cameras = max(map(self.count_publishers, topics), default=0)
        if self.health.cameras > 1:
            who = f"{self.health.cameras} cameras publish on {' or '.join(topics)}, and their frames mix"
            self._warn("cameras", f"{who}; remedy: a namespace for each camera and its node")

    def _warn(self, cause: str, text: str) -> None:
        """Logs a warning, the same cause at most once in a while; none of what fails as ROS has been shut down."""
        if not self.context.ok():
            return
        now = time.monotonic()
        if now - self._warned.get(cause, -WARN_PERIOD) >= WARN_PERIOD:
            self._warned[cause] = now
            self.get_logger().warning(text)

    # --- parameters -----------------------------------------------------------------------------

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        try:
            wanted = parameters.changed(self.settings, changes)
            if wanted.network != self.settings.network:
                check_engine(wanted.engine, wanted.model, wanted.scale, wanted.precision)
        except (ValueError, EngineError) as error:
            return SetParametersResult(successful=False, reason=str(error))
        before, self.settings = self.settings, wanted
        # Subscribing declares parameters itself, and so comes back here: nothing of ours has changed then.
        if wanted != before and self.pipeline is not None:
            self.pipeline.settings = wanted
            if wanted.network != before.network:
                self._exchange_network()
            if wanted.depth_transport != before.depth_transport:
                self._let_go()
            self._follow_demand()
        # Asked for again, an engine that hangs is left behind.
        if self.health.hangs and any(change.name == "engine" for change in changes):
            self._exchange_network()
        return SetParametersResult(successful=True)

    def _exchange_network(self) -> None:
        """Loads the network asked for in a thread of its own; frames go on through the old one meanwhile."""
        with self._switch_lock:
            if self._switch is None:
                self._switch = threading.Thread(target=self._load_network, name="dsca_switch", daemon=True)
                self._switch.start()

    def _load_network(self) -> None:
        loaded = None
        while True:
            with self._switch_lock:
                wanted, pipeline = self.settings, self.pipeline
                if pipeline is None or (pipeline, wanted.network) == loaded:
                    self._switch = None
                    return
            loaded = pipeline, wanted.network
            try:
                upsampler = self._make_upsampler(wanted)
                if not pipeline.exchange(upsampler):
                    loaded = self._leave_behind(pipeline, upsampler), wanted.network
                self.health.network_error = ""
            except Exception as error:  # whatever loading raises: the one that runs goes on, and so does this thread
                reason = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
                text = f"{wanted.model} x{wanted.scale} cannot be loaded ({reason}); the one before goes on"
                self.health.network_error = text
                self.get_logger().error(text)

    def _leave_behind(self, hanging: Pipeline, upsampler: Upsampler) -> Pipeline:
        """Goes on without a pipeline whose engine hangs; it frees itself if the engine ever comes back."""
        with self._switch_lock:
            # The node may have been cleaned up meanwhile: then there is nothing to go on with.
            wanted = self.pipeline is hanging
            fresh = self._make_pipeline(upsampler) if wanted else hanging
            if wanted:
                self.pipeline = fresh
                fresh.settings = self.settings  # they may have changed just now
        if wanted:
            self.get_logger().warning("the engine that hangs is left behind, and a new one runs")
            hanging.close()
        else:
            upsampler.close()
        return fresh

    # --- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        """Frees everything; the node is of no use after that."""
        switch = self._switch
        self._free()
        if switch is not None:
            switch.join(timeout=2.0)
        self.destroy_node()
        # rclpy leaves it to the garbage collector, and the node in the graph until then.
        self._state_machine.destroy_when_not_in_use()


def main(args: list[str] | None = None) -> None:
    """The executable ``dsca_node``: runs until Ctrl-C or SIGTERM; exit status 1 if it cannot start."""
    run(DscaNode, "dsca_node", args)


if __name__ == "__main__":
    main()
