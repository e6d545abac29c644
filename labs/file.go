package labs

// The typed tree of a lab file. The decoder and the JSON Schema are both made
// from these structs: a field's yaml tag is its key, jsonschema:"required"
// holds for both, and the description is what an editor shows. Each struct
// keeps the node it was read from in At, for the places of problems.

type labSpec struct {
	At          *node            `yaml:"-"`
	Name        string           `yaml:"name" jsonschema:"required,pattern=^[a-z][a-z0-9-]*$,maxLength=40" jsonschema_description:"Name of the lab: 1 to 40 of a-z, 0-9 and hyphen, starting with a letter."`
	Title       string           `yaml:"title" jsonschema_description:"What the lab shows, in one line of at most 200 characters."`
	Params      paramList        `yaml:"params" jsonschema_description:"Parameters by name. ${name} stands for the value, and expressions know it by its name. A list is swept: the lab is run at each of its values, in the cross product with other lists."`
	Topology    topologyList     `yaml:"topology" jsonschema_description:"The usual topologies: nodes and links by a few words. One, or a list."`
	Nodes       nodeList         `yaml:"nodes" jsonschema_description:"The nodes: a list of names (endpoints), or a mapping from names to what they are. client[1-10] is ten nodes. Needed without a topology."`
	Links       []linkSpec       `yaml:"links" jsonschema_description:"The links between nodes."`
	Experiments []experimentSpec `yaml:"experiments" jsonschema_description:"The experiments, run one after another in each trial. A lab without any can stand (tcplab up), but not be run."`
	Repeat      *count           `yaml:"repeat" jsonschema_description:"Repetitions of each parameter point, 1 to 1000. Default 1."`
	Expect      []expectSpec     `yaml:"expect" jsonschema_description:"What theory predicts, and how far the measurement may differ."`
}

type nodeSpec struct {
	At      *node      `yaml:"-"`
	Kind    *nodeKind  `yaml:"kind" jsonschema_description:"endpoint (default), router (forwards IPv4 and IPv6), or switch (bridges its links and has no address)."`
	Stack   *nodeStack `yaml:"stack" jsonschema_description:"namespace (default): a network namespace of the lab's own. host: the own network stack of the host that carries the node. outside: machines without an agent, as the host reaches them."`
	On      string     `yaml:"on" jsonschema_description:"Name of the host that carries the node. Default: the controller chooses."`
	Routes  routeMap   `yaml:"routes" jsonschema_description:"Routes that are not the shortest: from a destination (node, prefix or default) to the neighbour, or the link, that leads there."`
	Sysctls textMap    `yaml:"sysctls" jsonschema_description:"Sysctls of the node by their dotted name, which starts with net."`
}

type linkSpec struct {
	At        *node          `yaml:"-"`
	Between   []string       `yaml:"between" jsonschema:"required,minItems=2,maxItems=2" jsonschema_description:"The two nodes that the link joins; forward leads from the first to the second. Ranges of one length pair up, and a single node goes with each of a range."`
	Name      string         `yaml:"name" jsonschema_description:"Name of the link. Default: first-second."`
	RTT       *duration      `yaml:"rtt" jsonschema_description:"Round-trip delay, half of it in each direction. Not together with a delay."`
	shapeSpec                // of each direction
	Paths     []pathSpec     `yaml:"paths" jsonschema:"maxItems=16" jsonschema_description:"Shapes of some packets in each direction, in order: a packet goes by the first path that matches it. A path takes over nothing from the link."`
	Schedule  *schedule      `yaml:"schedule" jsonschema_description:"How the shape of each direction, or of a path, changes while a trial runs."`
	Trace     *trace         `yaml:"trace" jsonschema_description:"A recorded link that each direction follows: a file beside the lab file."`
	Forward   *directionSpec `yaml:"forward" jsonschema_description:"What differs from the first node to the second."`
	Backward  *directionSpec `yaml:"backward" jsonschema_description:"What differs from the second node to the first."`
	MTU       *size          `yaml:"mtu" jsonschema_description:"Bytes of the largest IP packet, 576 to 65521. Default 1500."`
	Engine    *engine        `yaml:"engine" jsonschema_description:"What enforces the shape: auto (default), netem, wire, or veth (which shapes nothing)."`
	Offload   *toggle        `yaml:"offload" jsonschema_description:"Keep segmentation and receive offload, so that packets on the link may be larger than those on a wire. Default false."`
	Interface textMap        `yaml:"interface" jsonschema_description:"Between a host's own stack and outside: the host's node and the name of its interface, {me: eth1}."`
	Match     *matchSpec     `yaml:"match" jsonschema_description:"Between a host's own stack and outside: which packets are shaped, as the host sends them; what it receives is matched with source for destination. The destination is a prefix."`
	Addresses addressMap     `yaml:"addresses" jsonschema_description:"Addresses with prefix length of each node on this link. Default: assigned."`
}

type directionSpec struct {
	At *node `yaml:"-"`
	shapeSpec
	Paths    []pathSpec `yaml:"paths" jsonschema:"maxItems=16" jsonschema_description:"Shapes of some packets, instead of the link's paths."`
	Schedule *schedule  `yaml:"schedule" jsonschema_description:"How the shape, or that of a path, changes while a trial runs, instead of the link's schedule."`
	Trace    *trace     `yaml:"trace" jsonschema_description:"A recorded link that this direction follows, instead of the link's trace."`
	Seed     *count     `yaml:"seed" jsonschema_description:"Seed of this direction's random generator. Default: derived from the run's seed, the link and the repetition."`
}

type experimentSpec struct {
	At      *node        `yaml:"-"`
	Name    string       `yaml:"name" jsonschema_description:"Name of the experiment; needed where there are several."`
	Flows   []flowSpec   `yaml:"flows" jsonschema:"required,minItems=1" jsonschema_description:"The flows that run together."`
	Sample  *duration    `yaml:"sample" jsonschema_description:"How often TCP_INFO of each end is sampled, 1ms to 1s. Default 10ms."`
	Observe *observeSpec `yaml:"observe" jsonschema_description:"What is watched beside the flows' own sockets. Sockets, states and queues are watched in all experiments where one asks."`
	Timeout *duration    `yaml:"timeout" jsonschema_description:"When a flow that has not ended is stopped and the trial fails, up to 24h. Default 60s."`
	Capture *captureSpec `yaml:"capture" jsonschema_description:"Packets are recorded while the experiment runs; {} records those at the ends of its flows. tcplab capture shows them. Default: none are."`
}

type flowSpec struct {
	At          *node            `yaml:"-"`
	Name        string           `yaml:"name" jsonschema:"required,pattern=^[a-z][a-z0-9_]*$,maxLength=40" jsonschema_description:"Name of the flow, for expressions (flow.NAME): 1 to 40 of a-z, 0-9 and underscore, starting with a letter."`
	Bulk        *bulkSpec        `yaml:"bulk" jsonschema_description:"Bytes from client to server, or both ways, on one connection or several."`
	Transaction *transactionSpec `yaml:"transaction" jsonschema_description:"Requests and replies, one after another on one connection, or on each of several."`
	Burst       *burstSpec       `yaml:"burst" jsonschema_description:"Writes of given sizes and gaps from client to server, each timed at both ends."`
	Connect     *connectSpec     `yaml:"connect" jsonschema_description:"Many connections, each made, perhaps used, and ended."`
	DNS         *dnsSpec         `yaml:"dns" jsonschema_description:"A name server, and lookups of names."`
	Exec        *execSpec        `yaml:"exec" jsonschema_description:"Programs in the nodes: a server's, a client's, or both."`
	HTTP        *httpSpec        `yaml:"http" jsonschema_description:"A page fetched, or a server loaded, over HTTP."`
	Resolve     *resolveSpec     `yaml:"resolve" jsonschema_description:"Look the server's name up first, at the name server of a dns flow. Default: the client knows the address."`
	Socket      *socketSpec      `yaml:"socket" jsonschema_description:"Socket options of both ends."`
	Family      *ipFamily        `yaml:"family" jsonschema_description:"IP version: ipv4 (default) or ipv6."`
	Source      string           `yaml:"source" jsonschema_description:"Address of the client's node from which it connects, one that a link gives it by addresses. Default: that of the route to the server."`
	orderSpec                    // when it runs
}

type transactionSpec struct {
	At          *node             `yaml:"-"`
	From        string            `yaml:"from" jsonschema:"required" jsonschema_description:"The node that connects and asks."`
	To          string            `yaml:"to" jsonschema:"required" jsonschema_description:"The node that listens and answers."`
	Writes      []size            `yaml:"writes" jsonschema:"required,minItems=1" jsonschema_description:"Sizes of the successive writes that make one request, 1B to 16MiB each."`
	Reply       *size             `yaml:"reply" jsonschema:"required" jsonschema_description:"Bytes of the reply, at least 1."`
	Count       *count            `yaml:"count" jsonschema_description:"Transactions of all connections together, 1 to 10000000, and one for each connection at least. Default 1."`
	Connections *count            `yaml:"connections" jsonschema_description:"Open connections, 1 to 128; whichever is free has the next transaction. Default 1."`
	ThinkTime   *duration         `yaml:"think_time" jsonschema_description:"What the client waits between a reply and its next request. Default 0."`
	Rate        *frequency        `yaml:"rate" jsonschema_description:"Requests a second, of all connections together, at which transactions are due, whether or not a connection is free; latency counts from then. Not together with think_time. Default: each begins when the one before has ended."`
	Schedule    []requestStepSpec `yaml:"schedule" jsonschema_description:"How the rate changes, in order of time."`
	ServerTime  *duration         `yaml:"server_time" jsonschema_description:"What the server waits between a request and its reply. Default 0."`
}

type expectSpec struct {
	At      *node       `yaml:"-"`
	Name    string      `yaml:"name" jsonschema:"required" jsonschema_description:"What the expectation says, in words."`
	Where   string      `yaml:"where" jsonschema_description:"CEL: true or false from the parameters, at which points it is asked. Default: at all."`
	Measure string      `yaml:"measure" jsonschema_description:"CEL: the measured number. With predict."`
	Predict expression  `yaml:"predict" jsonschema_description:"CEL number, or a quantity: the prediction."`
	Within  *withinSpec `yaml:"within" jsonschema_description:"How far measured may be from predicted; the greater of ratio and slack holds."`
	Over    *over       `yaml:"over" jsonschema_description:"Which repetitions must satisfy it: median (default) or every."`
	That    string      `yaml:"that" jsonschema_description:"CEL: a condition over measurements. Instead of measure and predict."`
	Rival   expression  `yaml:"rival" jsonschema_description:"CEL number, or a quantity: what would be measured were the phenomenon absent. What is permitted must stay below a quarter of its distance from predict."`
	Source  string      `yaml:"source" jsonschema_description:"Where the prediction comes from: an RFC, a kernel constant, a paper."`
}

type withinSpec struct {
	At    *node      `yaml:"-"`
	Ratio *share     `yaml:"ratio" jsonschema_description:"As a share of predicted: 3%."`
	Slack expression `yaml:"slack" jsonschema_description:"In its own unit: a quantity (2ms) or a CEL number (kernel.jiffy)."`
}
