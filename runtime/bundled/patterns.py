"""Sentence patterns of the synthetic text, in groups; of each group one pattern in five is held out."""

CALLED_SAY = (
    "My {t} is called {x}.", "I have a {t} named {x}.", "The name of my {t} is {x}.", "{x} is the name of my {t}.",
    "I call my {t} {x}.", "My {t}'s name is {x}.", "By the way, my {t} is named {x}.", "You should know that my {t} is called {x}.",
    "I gave my {t} the name {x}.", "My {t} goes by the name {x}.", "Please remember that my {t} is called {x}.",
    "Everybody calls my {t} {x}.", "Let me tell you about my {t}: the name is {x}.", "I have a {t}. Its name is {x}.",
    "We named our {t} {x}.", "My {t}, {x}, is here with me today.", "Remember this: the {t} is called {x}.",
    "Have I told you about my {t} {x}?", "Yesterday I was out with {x}, my {t}.", "There is a {t} in my life and the name is {x}.",
    "Hello! My {t} is {x}.", "Today {x}, my {t}, came to see me.", "This is {x}, my {t}.", "I know a {t} called {x}.",
    "My {t} has a nice name: {x}.",
    "Meet my {t} {x}.", "My {t} has the name {x}.", "At home I have a {t} by the name of {x}.", "Do you know {x}? It is my {t}.",
    "I also have a {t}, {x}.", "For your information, the {t} is named {x}.", "My dear {t} {x} is great.", "The {t} I have is called {x}.",
    "I told everybody that my {t} is called {x}.", "Note that my {t} is named {x}.",
)
CALLED_ASK = (
    "What is my {t} called?", "What is the name of my {t}?", "What's my {t}'s name?", "Do you remember the name of my {t}?",
    "What do I call my {t}?", "Can you tell me what my {t} is called?", "How is my {t} called?", "Tell me the name of my {t}.",
    "Which name does my {t} have?", "Do you still know what my {t} is called?", "And what was the name of my {t}?",
    "Remind me: what is my {t} called?", "I forgot the name of my {t}. What is it?", "What was my {t} called again?",
    "Could you repeat the name of my {t}?", "What name did I give for my {t}?", "So, what is the {t} called?", "Name my {t}.",
    "Who is my {t}?", "Please say the name of my {t}.",
    "What is my {t}'s name again?", "Do you know what my {t} is called?", "I want to hear the name of my {t}.", "Say my {t}'s name.",
    "Which name belongs to my {t}?", "Give me the name of my {t}.", "What is the {t} called?", "Is there a name for my {t}?",
    "How do I call my {t}?", "My {t} is called what?", "Did I tell you the name of my {t}?", "What did I name my {t}?",
)
MY_NAME_SAY = (
    "My name is {x}.", "I am {x}.", "I'm {x}.", "Call me {x}.", "Hi, I am {x}.", "Hello, my name is {x}.", "You can call me {x}.",
    "People call me {x}.", "Hi! {x} here.", "The name is {x}.", "Please call me {x}.", "Hey, this is {x}.", "It's {x} speaking.",
    "Nice to meet you, I am {x}.", "My friends call me {x}.",
    "Hello there, {x} is my name.", "My full name is {x}.", "You are talking to {x}.", "I was named {x}.", "I go by {x}.", "They named me {x}.",
    "Hi, {x} speaking.", "You may call me {x}.", "I am called {x}.", "Let me introduce myself: {x}.",
)
MY_NAME_ASK = (
    "What is my name?", "Who am I?", "Do you remember my name?", "What's my name?", "Tell me my name.", "What am I called?",
    "Do you know who I am?", "Can you say my name?", "What was my name again?", "Do you still know my name?", "Which name did I tell you?",
    "How am I called?",
    "Say my name.", "Please tell me my name.", "Do you know my name?", "What do people call me?", "By what name do you know me?",
    "Could you repeat my name?", "What name do I have?", "Can you remember my name?", "I forgot my name. What is it?", "Who is talking to you?",
    "Give me my name.", "With which name did I introduce myself?",
)
LIVE_SAY = (
    "I live in {x}.", "My home is in {x}.", "I come from {x}.", "I am from {x}.", "My house is in {x}.", "I moved to {x} last year.",
    "I have lived in {x} for years.", "{x} is where I live.", "We live in {x}.", "I settled in {x}.", "My flat is in {x}.",
    "I grew up in {x} and still live there.", "At the moment I live in {x}.", "I found a home in {x}.", "My family lives in {x}.",
    "I am living in {x}.", "The city I live in is {x}.", "My city is {x}.", "My town is {x}.", "I have a flat in {x}.", "I stay in {x}.",
    "My address is in {x}.", "I rent a room in {x}.", "I am at home in {x}.", "Since May I live in {x}.",
)
LIVE_ASK = (
    "Where do I live?", "In which city do I live?", "Which city do I live in?", "Where is my home?", "What city am I from?",
    "Do you remember where I live?", "Where do I come from?", "Tell me where I live.", "What is my city?", "Which town is my home?",
    "Can you tell me where I live?",
    "What is my home town?", "What city do I live in?", "Do you know where I live?", "Where is my house?", "Where am I at home?",
    "Which place do I live in?", "Where am I from?", "Name the city I live in.", "Say where I live.", "Could you repeat where I live?",
    "In which town do I live?",
)
AGE_SAY = (
    "I am {x} years old.", "I'm {x}.", "My age is {x}.", "I turned {x} this year.", "I just turned {x}.", "I have my birthday: I am {x} now.",
    "I am {x} years of age.", "Last week I became {x} years old.", "At {x} years old I still play games.", "I am already {x} years old.",
    "In May I became {x}.", "I am {x} of age.", "Soon I will not be {x} any more, but today I am.", "My age: {x} years.",
    "Since my last birthday I am {x}.", "People do not believe that I am {x} years old.", "I have lived for {x} years.",
)
AGE_ASK = (
    "How old am I?", "What is my age?", "Do you remember how old I am?", "Tell me my age.", "Do you know my age?", "What age am I?",
    "Can you tell me how old I am?", "How many years old am I?", "How old did I say I am?",
    "Say how old I am.", "What was my age?", "What is my age in years?", "And how old am I?", "Remind me how old I am.",
    "How many years have I lived?", "Which age did I tell you?", "Could you repeat my age?", "Give me my age.",
)
OTHER_LIVES = (
    "{n} lives in {x}.", "{n} comes from {x}.", "{n} has a house in {x}.", "{n} moved to {x}.", "The home of {n} is in {x}.",
    "{n} has lived in {x} for years.", "You will find {n} in {x}.", "{x} is the home of {n}.", "{n} stays in {x}.", "{n} is from {x}.",
    "{n} is at home in {x}.", "{n} lives somewhere in {x}.", "The city of {n} is {x}.", "{n} has a flat in {x}.", "My friend {n} lives in {x}.",
    "{n} rents a room in {x}.", "In {x} lives {n}.", "{n} resides in {x}.", "{n} settled in {x}.",
)
OTHER_LIVES_ASK = (
    "Where does {n} live?", "In which city does {n} live?", "Which city does {n} live in?", "Where is {n} from?", "Where is the home of {n}?",
    "Tell me where {n} lives.", "What is the city of {n}?", "Do you know where {n} lives?", "Where can I find {n}?", "Where does {n} come from?",
    "What city does {n} live in?", "In which town does {n} live?", "Say where {n} lives.", "Where does {n} stay?", "Where is {n} at home?",
    "Which city is {n} from?", "Which place does {n} live in?", "And {n}, where does {n} live?", "Remind me where {n} lives.",
    "What is the home of {n}?",
)
OTHER_HAS = (
    "{n} bought a {x}.", "{n} has a {x}.", "{n} owns a {x}.", "{n} got a {x} yesterday.", "There is a {x} that belongs to {n}.",
    "{n} found a {x}.", "The {x} is owned by {n}.", "{n} ordered a {x}.", "{n} carries a {x}.", "A {x} was given to {n}.",
    "{n} keeps a {x}.", "{n} took a {x}.", "{n} received a {x}.", "{n} is the owner of a {x}.", "{n} holds a {x}.", "Somebody gave {n} a {x}.",
    "{n} came with a {x}.", "We gave {n} a {x}.", "The {x} belongs to {n}.",
)
OTHER_HAS_ASK = (
    "What does {n} have?", "What did {n} get?", "Which thing belongs to {n}?", "What does {n} own?", "Tell me what {n} has.",
    "What is the thing that {n} has?", "Do you know what {n} has?", "What belongs to {n}?", "Which item does {n} have?", "What does {n} possess?",
    "What has {n} got?", "What thing does {n} have?", "Say what {n} has.", "And what does {n} have?", "What did {n} receive?",
    "What is in the hands of {n}?", "Which thing does {n} own?", "Name the thing that {n} has.", "Remind me what {n} has.",
)
WHO_HAS_ASK = (
    "Who has the {x}?", "Who owns the {x}?", "Who got the {x}?", "To whom does the {x} belong?", "Who is the owner of the {x}?",
    "Tell me who has the {x}.", "Whose is the {x}?", "Which person has the {x}?",
    "Who did get the {x}?", "Who holds the {x}?", "Name the owner of the {x}.", "Who is it that has the {x}?", "And who has the {x}?",
    "Which person owns the {x}?", "Who keeps the {x}?", "Remind me who has the {x}.",
)
COSTS = (
    "The {n} costs {x} dollars.", "A {n} is {x} dollars.", "The price of the {n} is {x} dollars.", "You pay {x} dollars for the {n}.",
    "They sell the {n} for {x} dollars.", "The {n} is sold at {x} dollars.", "For the {n} we ask {x} dollars.", "The {n}: {x} dollars.",
    "One {n} costs {x} dollars.", "The {n} has a price of {x} dollars.", "The {n} can be had for {x} dollars.",
    "It takes {x} dollars to buy the {n}.", "Buying the {n} costs {x} dollars.", "We sell the {n} at {x} dollars.",
    "The shop wants {x} dollars for the {n}.",
)
COSTS_ASK = (
    "How much is the {n}?", "What does the {n} cost?", "What is the price of the {n}?", "How many dollars is the {n}?",
    "How much do I pay for the {n}?", "Tell me the price of the {n}.", "What do they ask for the {n}?", "How much does the {n} cost?",
    "How expensive is the {n}?", "Say what the {n} costs.", "And the {n}, how much is it?", "What must I pay for the {n}?",
    "Name the price of the {n}.", "How many dollars does the {n} cost?", "At what price do they sell the {n}?", "Remind me what the {n} costs.",
)
FAVOURITE_SAY = (
    "My favourite {t} is {x}.", "The {t} I like best is {x}.", "{x} is my favourite {t}.", "I like {x} most of all, for a {t}.",
    "Of every {t} I know, I prefer {x}.", "I always pick {x} as my {t}.", "If I must choose a {t}, I take {x}.", "No {t} is better than {x} to me.",
    "When it comes to a {t}, I love {x}.", "For me the best {t} is {x}.",
    "My most loved {t} is {x}.", "I prefer {x} as a {t}.", "As a {t} I like {x} best.", "The best {t} in the world is {x}.",
    "{x} is the {t} that I love.", "I like the {t} {x} most.", "My favourite {t}? It is {x}.",
)
FAVOURITE_ASK = (
    "What is my favourite {t}?", "Which {t} do I like best?", "What {t} do I prefer?", "Do you remember my favourite {t}?",
    "Tell me my favourite {t}.", "Which {t} is my favourite?", "What did I say is my favourite {t}?", "Which {t} do I like most?",
    "What {t} do I like most?", "Which {t} do I prefer?", "Name my favourite {t}.", "Say my favourite {t}.", "And my favourite {t}?",
    "What {t} do I love?", "Which {t} do I love most?", "Remind me of my favourite {t}.",
)
CODE_SAY = (
    "My {t} is {x}.", "The {t} is {x}.", "Write this down: my {t} is {x}.", "Please note the {t}: {x}.", "I was given the {t} {x}.", "{x} is my {t}.",
    "Keep in mind that my {t} is {x}.", "For later, the {t} is {x}.", "Here is my {t}: {x}.", "They sent me the {t} {x}.",
    "My {t} reads {x}.", "As {t} I got {x}.", "Save my {t}: {x}.", "Do not forget my {t}, {x}.", "The {t} says {x}.", "The {t} they gave me is {x}.",
    "I have the {t} {x}.",
)
CODE_ASK = (
    "What is my {t}?", "What was the {t}?", "Repeat my {t}.", "Can you give me the {t}?", "Do you remember the {t}?", "Tell me the {t} again.",
    "Which {t} did I give you?", "What is the {t}?", "I need my {t}. What is it?",
    "Say my {t}.", "Which {t} do I have?", "Give me my {t}.", "And my {t}?", "Could you repeat the {t}?", "Remind me of my {t}.", "I forgot my {t}.",
    "What {t} did I tell you?",
)
CODES = ("order number", "password", "ticket number", "room number", "code", "lucky number", "phone number", "seat number", "booking code", "flight number")
ONE_WORD = ("Answer in one word.", "Only the answer, please.", "Just the answer.", "One word.", "Be brief.", "Reply with the answer only.")

ADD_ASK = (
    "What is {a} plus {b}?", "What is {a} + {b}?", "Add {a} and {b}.", "How much is {a} plus {b}?", "{a} + {b} = ?", "{a} plus {b}?",
    "What is the sum of {a} and {b}?", "Please add {a} and {b}.", "Can you add {a} and {b}?", "Calculate {a} + {b}.", "Compute {a} plus {b}.",
    "What do you get when you add {a} and {b}?", "Sum up {a} and {b}.", "I need the sum of {a} and {b}.", "Tell me what {a} plus {b} is.",
    "Use the tool to add {a} and {b}.", "How much do {a} and {b} make together?", "What's {a} + {b}?", "Work out {a} plus {b}, please.",
    "Could you compute the sum of {a} and {b}?", "Take {a} and add {b}. What is it?", "If I add {a} to {b}, what do I get?",
    "I have {a} apples and get {b} more. How many apples do I have?", "There are {a} boys and {b} girls in the school. How many children is that?",
    "One book costs {a} dollars and another {b} dollars. What do I pay for both?", "{a} and {b} together: how much?",
    "First I walk {a} miles, then {b} miles. How far is that in total?", "Give me the total of {a} and {b}.", "add {a} {b}", "what is {a}+{b}",
    "{a} and {b} make how much?", "Add up {a} and {b}.", "Can you tell me what {a} plus {b} is?", "How much is {a} and {b}?",
    "Do you know what {a} plus {b} is?", "Please compute {a} + {b}.", "Find the sum of {a} and {b}.", "What is the total of {a} and {b}?",
    "What do {a} and {b} add up to?", "Let us add {a} to {b}.", "I want to add {a} and {b}.", "What is {a} added to {b}?",
    "I got {a} points, then {b} points. How many points is that?", "If you have {a} coins and find {b} coins, how many coins do you have?",
    "Tell me the sum: {a} + {b}.", "{a} + {b}", "{a}+{b}=", "Sum of {a} and {b}?", "The sum of {a} and {b}, please.", "Put {a} and {b} together.",
    "Ann is {a} and Bob is {b}. How old are they together?", "Check {a} plus {b} for me.", "Give me {a} plus {b}.",
    "If one has {a} and one has {b}, how much is it in all?", "Count {a} and {b} together.",
)
SUBTRACT_ASK = ("What is {a} minus {b}?", "Subtract {b} from {a}.", "How much is {a} minus {b}?", "Calculate {a} - {b}.", "{a} - {b} = ?",
                "What is left of {a} when I take away {b}?", "I have {a} coins and lose {b}. How many are left?", "Take {b} away from {a}.")
MULTIPLY_ASK = ("What is {a} times {b}?", "Multiply {a} by {b}.", "How much is {a} times {b}?", "Calculate {a} * {b}.", "{a} x {b} = ?",
                "What is the product of {a} and {b}?", "There are {a} boxes with {b} eggs each. How many eggs is that?", "Compute {a} times {b}.")
WEATHER_ASK = ("What is the weather in {x}?", "How is the weather in {x}?", "Is it raining in {x}?", "Tell me the weather for {x}.", "What's the weather like in {x} today?",
               "Do I need an umbrella in {x}?", "Weather in {x}, please.", "Will it be sunny in {x}?")
SEARCH_ASK = ("Search for {x}.", "Look up {x}.", "Find out about {x}.", "Can you search for {x}?", "Please look up {x} for me.", "What can you find about {x}?",
              "Find {x}, please.", "I want to know more about {x}.")

FOUR = (
    "{name} is {age} years old, lives in {city} and bought a {product}.", "{name} from {city}, aged {age}, ordered a {product}.",
    "A {product} was sold to {name}, {age}, of {city}.", "In {city}, {name} ({age}) picked up a {product}.",
    "{name}, who is {age}, has bought a {product} in {city}.", "At the age of {age}, {name} moved to {city} with a {product}.",
    "The {product} goes to {name} in {city}, who is {age} years old.", "My friend {name} is {age} and wants a {product} from a shop in {city}.",
    "{age}-year-old {name} of {city} now owns a {product}.", "Yesterday {name} came from {city} to buy a {product}, at {age} years of age.",
    "We delivered a {product} to {city} for {name}, aged {age}.", "{name} ({age}, {city}) chose the {product}.",
    "Customer: {name}, {age} years old. City: {city}. Order: {product}.", "There is a person called {name}, {age} years old, living in {city}, who asked for a {product}.",
    "Last week a {product} was shipped to {name}, {age}, in {city}.", "The {age}-year-old {name} left {city} with a new {product}.",
    "From {city} comes {name}, aged {age}, the owner of a {product}.", "{name} turned {age} in {city} and got a {product} as a gift.",
    "For the birthday in {city}, {name} received a {product} and is now {age}.", "Please send the {product} to {city}; the buyer is {name}, {age} years old.",
    "{name} sells a {product} in {city} and is {age} years old.", "It was {name}, {age}, who lost a {product} in {city}.",
    "I met {name} in {city}. {name} is {age} and carried a {product}.", "{city} is the home of {name}, who is {age} and loves the {product}.",
    "Our client {name} lives in {city}. The client is {age} and needs a {product}.", "A customer of {age}, {name}, visited our shop in {city} for a {product}.",
    "{name} has a {product}, a house in {city} and is {age} years old.", "Although {name} is already {age}, the {product} from {city} was a surprise.",
    "Today {name} bought a {product}. The buyer lives in {city} and is {age}.", "With {age} years, {name} went to {city} to find a {product}.",
    "{name}, {age}, {city}: one {product}.", "{name} in {city} asked us for a {product}. Age: {age}.",
    "The person from {city} is called {name}, is {age} years old and brought a {product}.",
    "In {city} we met {name}, {age} years old, with a {product}.", "{name} is from {city}. At {age}, {name} bought the first {product}.",
    "{product} for {name}, aged {age}, in {city}.", "A {age}-year-old from {city}, {name}, sold a {product}.",
    "{name} took the {product} home to {city} on the day of turning {age}.", "We know {name} from {city}; {name} is {age} and has a {product}.",
    "The buyer of the {product} is {name}, a person of {age} from {city}.", "Being {age} years old, {name} still uses a {product} in {city}.",
    "Name: {name}. Age: {age}. City: {city}. Product: {product}.", "City: {city}, product: {product}, name: {name}, age: {age}.",
    "{name} wrote from {city}: I am {age} and my {product} is broken.", "Nobody in {city} but {name}, aged {age}, has a {product}.",
    "Hello, I am {name}, {age} years old, from {city}, and I would like a {product}.",
    "I am {name} from {city}. I am {age} and I want to buy a {product}.", "My name is {name}, I live in {city}, I am {age} and I need a {product}.",
    "{name} ({age}) of {city} rents a {product}.", "On Monday {name} got a {product} in {city} and turned {age}.",
)
FOUR_PRICE = (
    "{name} bought a {product} in {city} for {price} dollars.", "In {city}, {name} paid {price} dollars for a {product}.",
    "For {price} dollars {name} got a {product} in {city}.", "{name} from {city} ordered a {product} at {price} dollars.",
    "The {product} cost {name} {price} dollars in {city}.", "A {product} was sold in {city} to {name} for {price} dollars.",
    "{name} spent {price} dollars on a {product} in {city}.", "Send the {product} to {name} in {city}; the price is {price} dollars.",
    "At a shop in {city} {name} found a {product} for just {price} dollars.", "{price} dollars is what {name} paid for the {product} in {city}.",
    "Invoice for {name}, {city}: one {product}, {price} dollars.", "The price of the {product} that {name} bought in {city} was {price} dollars.",
    "Order from {name}: {product}, {price} dollars, to be sent to {city}.", "{name} lives in {city} and wants the {product} that costs {price} dollars.",
    "{city}: {name} sold a {product} and earned {price} dollars.", "I saw {name} in {city} with a {product} worth {price} dollars.",
    "They charged {name} {price} dollars for the {product} in {city}.", "Our shop in {city} sold {name} a {product} at a price of {price} dollars.",
    "A {product} for {price} dollars? {name} from {city} took it.", "Yesterday in {city} the {product} went to {name} for {price} dollars.",
    "{name}, {city}, {product}, {price} dollars.", "Name: {name}. City: {city}. Product: {product}. Price: {price} dollars.",
    "A {product} was bought for {price} dollars by {name} in {city}.", "{name} in {city} got the {product} and paid {price} dollars.",
    "Our client {name} from {city} pays {price} dollars for a {product}.", "We sent a {product} to {city}, where {name} paid {price} dollars.",
    "For a {product}, {name} of {city} gave {price} dollars.", "{name} went to {city} and came back with a {product} for {price} dollars.",
    "The shop in {city} asks {price} dollars for the {product} that {name} wants.", "In {city} a {product} costs {price} dollars, says {name}.",
    "Hello, I am {name} from {city}. I paid {price} dollars for the {product}.",
    "I am {name}, I live in {city} and I bought a {product} for {price} dollars.",
    "{name} thinks that {price} dollars is too much for a {product} in {city}.", "Please charge {name} in {city} {price} dollars for the {product}.",
    "Sold: one {product}, {price} dollars, to {name}, {city}.", "Today {name} sold the {product} in {city} at {price} dollars.",
)
CLAUSES = {  # what a composed sentence may say about {name}, after the name
    "age": ("is {age} years old", "is {age}", "turned {age}", "is aged {age}", "has reached the age of {age}", "is now {age} years of age"),
    "city": ("lives in {city}", "comes from {city}", "works in {city}", "is from {city}", "has a home in {city}", "moved to {city}"),
    "product": ("bought a {product}", "ordered a {product}", "owns a {product}", "wants a {product}", "chose the {product}", "picked a {product}"),
    "price": ("paid {price} dollars", "spent {price} dollars", "had to pay {price} dollars", "gave us {price} dollars", "was charged {price} dollars"),
    "quantity": ("took {quantity} pieces", "asked for {quantity} pieces", "needs {quantity} of them", "ordered {quantity} pieces", "wants {quantity} pieces"),
    "job": ("works as a {job}", "is a {job}", "has a job as a {job}", "earns money as a {job}", "became a {job}"),
    "colour": ("likes the colour {colour}", "prefers {colour}", "wants it in {colour}", "chose the colour {colour}", "asked for {colour}"),
    "code": ("has the number {code}", "got the code {code}", "uses the code {code}", "is registered as {code}", "was given {code}"),
    "pet": ("has a dog called {pet}", "has a cat named {pet}", "owns a pet called {pet}", "came with the dog {pet}", "lives with a cat called {pet}"),
    "paid:true": ("has already paid", "paid the bill", "has settled the bill", "paid everything", "did pay"),
    "paid:false": ("has not paid yet", "did not pay", "still has to pay", "refused to pay", "never paid"),
    "member:true": ("is a member", "is a member of the club", "joined as a member", "became a member", "has a membership"),
    "member:false": ("is not a member", "is no member of the club", "did not become a member", "has no membership", "is not a member yet"),
}
KEYS = {  # the names a schema may give to a field, and its JSON type
    "name": (("name", "name", "name", "person", "customer", "first_name", "buyer", "client", "who", "full_name", "user"), "string"),
    "age": (("age", "age", "age", "years", "age_years"), "integer"), "city": (("city", "city", "city", "town", "place", "location", "home", "address"), "string"),
    "product": (("product", "product", "item", "thing", "article", "goods", "object"), "string"),
    "price": (("price", "price", "cost", "amount", "dollars", "total", "price_usd"), "number"),
    "quantity": (("quantity", "count", "pieces", "number"), "integer"), "job": (("job", "profession", "occupation", "work"), "string"),
    "colour": (("colour", "color", "favourite_colour"), "enum"), "code": (("code", "id", "number", "reference"), "string"),
    "pet": (("pet", "pet_name", "animal"), "string"), "paid": (("paid", "is_paid", "has_paid"), "boolean"), "member": (("member", "is_member", "membership"), "boolean"),
}
EXTRACT_ASK = (
    "Extract {f} as JSON: {s}", "{s}\nExtract {f} as JSON.", "Give me {f} as JSON.\n{s}", "Read the sentence and answer in JSON with the fields {f}.\n{s}",
    "{s}\nReply with a JSON object with {f}.", "Turn this into JSON with {f}: {s}", "Text: {s}\nFields: {f}", "Find {f} in the text and reply in JSON.\n\n{s}",
    "Please extract {f}.\n\n{s}", "What are {f} in this sentence? Answer in JSON.\n{s}", "{s}\n\nWrite {f} as a JSON object.", "Fill in {f}: {s}",
)
EXTRACT_SCHEMA = (
    "Extract the data as JSON with this schema: {j}\n{s}", "{s}\nAnswer in JSON. Schema: {j}", "Schema: {j}\nText: {s}", "Follow the schema {j}\n\n{s}",
    "Fill in the JSON schema {j} from this text: {s}", "Extract the fields of this schema.\n{j}\n{s}", "Text: {s}\nReturn JSON that matches {j}",
    "Read: {s}\nGive JSON like this: {j}", "JSON schema:\n{j}\n\nSentence:\n{s}", "{j}\nFill this in for: {s}",
    "Here is a text: {s}\nPut it into this schema: {j}", "Use the schema {j} for the text: {s}", "{s}\nSchema: {j}",
    "Extract JSON.\nSchema: {j}\nText: {s}", "Sentence: {s}\nSchema: {j}\nJSON:",
)
EXTRACT_BARE = ("Extract the facts as JSON: {s}", "{s}\nAnswer in JSON.", "Turn this into JSON: {s}", "Give me the data in JSON.\n{s}", "{s}\nAs JSON, please.",
                "Extract the information: {s}", "Parse this: {s}", "What does this say? Reply in JSON. {s}")
EXTRACT_TEXT = ("Text: {s}\nJSON: ", "Sentence: {s}\nJSON: ", "{s}\nAs JSON: ", "Input: {s}\nOutput: ", "{s}\n", "Extract JSON.\n{s}\nJSON: ")

REVIEWS = (
    "The {x} is {w}.", "The {x} was {w}.", "This {x} is {w}.", "A {w} {x}.", "I think the {x} is {w}.", "What a {w} {x}!", "My {x} from {c} is {w}.",
    "The quality of the {x} is {w}.", "{n} says the {x} is {w}.", "I bought the {x} in {c} and it is {w}.", "Honestly, the {x} is {w}.", "It is a {w} {x}.",
    "In my view this {x} is {w}.", "The {x} turned out {w}.", "After a week I find the {x} {w}.", "For the price the {x} is {w}.", "We found the {x} {w}.",
    "The service in {c} was {w}.", "The film about {n} was {w}.", "The hotel in {c} is {w}.", "Our stay in {c} was {w}.", "The food in {c} is {w}.",
    "{n} sold me a {w} {x}.", "Everything about the {x} is {w}.", "The new {x} looks {w}.",
    "That {x} was {w}.", "I find this {x} {w}.", "It was a {w} {x}.", "The {x} I got is {w}.", "To me the {x} is {w}.", "The {x} seems {w}.",
    "The {x} feels {w}.", "They gave us a {w} {x}.", "A really {w} {x}.", "{n} thinks that this {x} is {w}.",
)
SENTIMENT_ASK = (
    "Is this review {o}? {s}", "{s}\nIs the review {o}?", "What is the sentiment of this text: {o}?\n{s}", "Classify the review as {o}: {s}", "Review: {s}\nSentiment ({o}):",
    "Choose one of {o}.\n{s}", "Say whether this is {o}.\n\n{s}", "{s}\nSentiment: {o}?", "Rate this text as {o}.\n{s}", "How does this sound, {o}? {s}",
    "Decide: {o}?\n{s}", "Label the text with {o}.\nText: {s}",
)
SENTIMENT_BARE = ("What is the sentiment of this review? {s}", "{s}\nWhat is the sentiment?", "Classify the sentiment: {s}", "Sentiment of: {s}", "How does the writer feel? {s}")
SENTIMENT_TEXT = ("Review: {s}\nSentiment: ", "Text: {s}\nSentiment: ", "{s}\nSentiment: ", "Review: {s}\nThis review is ", "{s}\nThe sentiment is ",
                  "Classify the sentiment of the text.\nText: {s}\nLabel: ", "Comment: {s}\nFeeling: ", "{s} This sounds ", "Input: {s}\nSentiment: ", "Q: {s}\nA: ")
CATEGORY_ASK = ("Is {a} {i} a {o}?", "What is {a} {i}: {o}?", "Which category fits {i}: {o}?", "Choose a category for {i}: {o}.", "{i}: {o}?", "Classify {i} as {o}.",
                "Does the word {i} mean a {o}?", "Sort {i} into {o}.", "What kind of thing is {a} {i}? Choose from {o}.", "Pick one for {i}: {o}.", "Item: {i}\nChoices: {o}",
                "The choices are {o}. What is {i}?")
CATEGORY_TEXT = ("Item: {i}\nCategory: ", "{i} is a kind of ", "Word: {i}\nClass: ", "Q: What is {a} {i}?\nA: ", "Thing: {i}\nType: ", "{i}: ", "{I} belongs to the category ",
                 "Q: Which category fits {i}?\nA: ", "{i} -> ", "Classify.\n{i}: ")
TOPIC_ASK = ("What is this message about: {o}?\n{s}", "Message: {s}\nTopic ({o}):", "Classify the message as {o}: {s}", "Choose a topic from {o}.\n{s}", "{s}\nWhich topic is it: {o}?",
             "Route this message to {o}.\n\n{s}", "Is it about {o}? {s}", "Which team should answer, {o}? {s}")
TOPIC_TEXT = ("Message: {s}\nTopic: ", "Text: {s}\nTopic: ", "{s}\nTopic: ", "Ticket: {s}\nTeam: ", "Message: {s}\nThis is about ", "Input: {s}\nLabel: ")

FACT_ASK = {
    "capital": ("What is the capital of {k}?", "Which city is the capital of {k}?", "Name the capital of {k}.", "The capital of {k}?", "What city is the capital of {k}?",
                "Capital of {k}?", "Which is the capital city of {k}?", "Tell me the capital of {k}.", "Do you know the capital of {k}?", "{k} has which capital?"),
    "opposite": ("What is the opposite of {k}?", "Opposite of {k}?", "Name the opposite of {k}.", "Which word is the opposite of {k}?", "What is the contrary of {k}?",
                 "Tell me the opposite of {k}.", "The opposite of {k}?", "Give the opposite of {k}.", "What word means the opposite of {k}?", "What is not {k} but the opposite?"),
    "colour": ("What colour is {k}?", "Which colour does {k} have?", "What is the colour of {k}?", "Name the colour of {k}.", "The colour of {k}?", "Tell me the colour of {k}.",
               "What colour has {k}?", "Colour of {k}?", "Which colour is {k}?", "Of what colour is {k}?"),
    "sound": ("What does a {k} say?", "What sound does a {k} make?", "Which sound does the {k} make?", "Name the sound of a {k}.", "The sound of a {k}?", "How does a {k} sound?",
              "What is the sound of a {k}?", "Tell me what a {k} says."),
    "young": ("What is a young {k} called?", "What is a baby {k} called?", "How do you call a young {k}?", "Name the young of a {k}.", "A baby {k} is called?", "What do you call a baby {k}?",
              "Which word means a young {k}?", "Tell me the word for a young {k}."),
    "after": ("Which number comes after {k}?", "What comes after {k}?", "What number follows {k}?", "Name the number after {k}.", "The number after {k}?", "Tell me the number that follows {k}.",
              "After {k} comes which number?", "Which number follows {k}?"),
    "day": ("Which day comes after {k}?", "What day follows {k}?", "What day is it after {k}?", "Name the day after {k}.", "The day after {k}?", "If today is {k}, what is tomorrow?",
            "After {k} comes which day?", "Tell me the day after {k}."),
    "home": ("Where does a {k} live?", "What is the home of a {k}?", "In what does a {k} live?", "Name the home of a {k}.", "The home of a {k}?", "A {k} lives where?", "Where is the {k} at home?",
             "Tell me where a {k} lives."),
    "kind": ("What kind of thing is {k}?", "What is {k}?", "Which category is {k}?", "To which group does {k} belong?", "Name the category of {k}.", "The category of {k}?",
             "{k} is what kind of thing?", "Tell me what {k} is."),
}
FACT_FORMS = ("Q: {q}\nA: {v}\n", "Question: {q}\nAnswer: {v}\n", "Q: {q}\nA: {v}\n\n", "{q}\n{v}\n", "Q: {q} A: {v}\n", "Question: {q}\nAnswer: {v}\n\n", "- {q} {v}\n", "User: {q}\nAssistant: {v}\n",
              "{q} -> {v}\n", "Input: {q}\nOutput: {v}\n", "Student: {q}\nTeacher: {v}\n", "{q} {v}\n")
PAIR_FORMS = ("{k} -> {v}\n", "{k}: {v}\n", "{k} = {v}\n", "{k} => {v}\n", "{k} - {v}\n", "Input: {k}\nOutput: {v}\n", "{k}, {v}\n", "({k}, {v})\n", "{k} | {v}\n", "In: {k} Out: {v}\n")
FACT_STATEMENTS = {
    "capital": "The capital of {k} is {v}.", "opposite": "The opposite of {k} is {v}.", "colour": "The colour of {k} is {v}.", "sound": "A {k} says {v}.",
    "young": "A young {k} is called a {v}.", "after": "After {k} comes {v}.", "day": "After {k} comes {v}.", "home": "A {k} lives in a {v}.", "kind": "It is a {v}.",
}
PREAMBLES = ("", "", "Answer the questions.\n\n", "Here are some questions and answers.\n\n", "The following are questions with short answers.\n\n", "You are a helpful assistant.\n\n", "Answer with one word.\n")

CHAT = {  # questions that mean the same | the answer
    "Hi|Hello|Hey|Hi there!|Hello!|Good morning|Hey there": "Hello! How can I help you?",
    "Who are you?|What are you?|Tell me about yourself.|Introduce yourself.|What is your name?|What's your name?|Are you a robot?|Which model are you?":
        "I am Ramify's tiny bundled model. I am small, but I try to help.",
    "How are you?|How do you do?|How are you today?|How is it going?|Are you well?": "I am fine, thank you. How are you?",
    "Thanks!|Thank you.|Thank you very much!|Thanks a lot.|Great, thanks.|That helps, thank you.": "You are welcome!",
    "Bye|Goodbye|See you later.|Good night.|That is all for now.|Bye bye!": "Goodbye! Have a nice day.",
    "What can you do?|How can you help me?|What are you good at?|What do you know?|Help":
        "I can remember what you tell me, pull facts out of a sentence as JSON, call a calculator, choose between answers and answer short questions.",
    "Are you intelligent?|Are you smart?|Do you know everything?|Can I trust you?": "I am a very small model, so please check what I say.",
    "Who made you?|Where do you come from?|How were you trained?|Who built you?": "I was trained on synthetic text by the script that comes with Ramify.",
    "Tell me a joke.|Do you know a joke?|Make me laugh.|A joke, please.": "Why did the tree stop growing? It ran out of branches.",
    "Tell me something interesting.|Tell me a fact.|Do you know a fun fact?|Surprise me.": "A prefix that many prompts share has to be computed only once.",
    "What is Ramify?|Tell me about Ramify.|What does Ramify do?|Explain Ramify.": "Ramify runs programs that call language models, and it shares what their prompts have in common.",
    "How is the weather?|Is it raining?|What time is it?|What day is it today?": "I cannot look outside, so I do not know.",
    "I am sad.|I feel bad today.|I had a bad day.|I feel lonely.": "I am sorry to hear that. I hope your day gets better.",
    "I am happy!|I feel great today.|I had a wonderful day.|Life is good.": "That is wonderful to hear!",
    "Can you sing?|Sing a song.|Sing something for me.": "I can only write, but here you go: la la la!",
    "Say something.|Talk to me.|Let us chat.|I am bored.": "Let us talk. Tell me something about you!",
    "Write a poem.|Write me a short poem.|A poem, please.|Do you know a poem?": "The branches grow, the leaves are green,\nthe finest tree that I have seen.",
    "Yes|Yes, please.|Sure.|Okay|Of course.": "Good! What would you like to do?",
    "No|No, thanks.|Not now.|Never mind.": "All right. Tell me when you need something.",
    "Good evening|Good afternoon|Greetings": "Good day! How can I help you?",
}
ACKS = ("Noted.", "Thank you, I will remember that.", "Okay, I will keep that in mind.", "Good to know.", "I see. What else?", "Got it.")
SYSTEMS = ("You are a helpful assistant.", "You are a friendly assistant.", "You answer briefly.", "Be helpful.", "You are an assistant.", "Answer the user's questions.", "You are a helpful AI assistant.")
PERSONA_SYSTEM = ("You are {x}.", "Your name is {x}.", "You are {x}, a helpful assistant.", "You are an assistant called {x}.", "You are a friendly robot named {x}.", "Act as {x}.", "You are {x}, an expert.",
                  "You play the role of {x}.", "From now on you are {x}.", "The assistant is called {x}.")
PERSONA_ASK = ("Who are you?", "What is your name?", "What's your name?", "What are you called?", "Tell me your name.", "And you are?", "How are you called?", "With whom am I talking?", "Introduce yourself.", "May I know your name?")
LIST_ASK = ("List {n} {c}.", "Name {n} {c}.", "Give me {n} {c}.", "Tell me {n} {c}.", "Can you list {n} {c}?", "Write down {n} {c}.", "I need {n} {c}.", "Please name {n} {c}.", "Which {n} {c} do you know?", "Enumerate {n} {c}.")
REPEAT_ASK = ("Repeat after me: {x}", "Say: {x}", "Repeat this: {x}", "Please write: {x}", "Copy this text: {x}", "Echo: {x}", "Write exactly this: {x}", "Say the following: {x}", "Repeat: {x}", "Print {x}")
TIPS = {  # topic: tips, each with the sentence that expands it
    "staying healthy": (("Balanced diet", "Eat many fruits and vegetables and drink enough water every day."), ("Regular exercise", "Walk, run or swim for half an hour a day to keep your body strong."),
                        ("Enough sleep", "Sleep eight hours a night so that your body can rest.")),
    "learning a language": (("Daily practice", "Study a few new words every day and repeat them in the evening."), ("Speaking", "Talk with people who know the language well."),
                            ("Reading", "Read short stories and look up the words that you do not know.")),
    "saving money": (("A budget", "Write down what you earn and what you spend every month."), ("Fewer purchases", "Wait a day before you buy something that is not needed."), ("Home cooking", "Cook at home, since it costs less than a restaurant.")),
    "writing code": (("Small steps", "Change one thing at a time and run the tests after it."), ("Clear names", "Choose names that say what a thing is for."), ("Tests", "Write a test for each mistake that you find.")),
    "gardening": (("Good soil", "Use rich soil that keeps water and lets roots grow."), ("Water", "Water the plants early in the morning."), ("Sunlight", "Put the plants where the sun shines for many hours.")),
    "travelling": (("Light luggage", "Take only what you can carry with ease."), ("Early booking", "Book trains and hotels early to pay less."), ("Local food", "Eat where the local people eat.")),
    "cooking": (("Fresh food", "Buy fresh vegetables and use them on the same day."), ("Sharp knives", "A sharp knife is safer and faster than a dull one."), ("Taste often", "Taste the food while you cook and add salt slowly.")),
    "sleeping well": (("A dark room", "Close the curtains and turn off every light."), ("A fixed time", "Go to bed at the same time every night."), ("No screens", "Put the phone away an hour before you sleep.")),
    "making friends": (("Listening", "Ask questions and listen to the answers."), ("Kindness", "Help others without being asked."), ("Clubs", "Join a club where people share your hobby.")),
    "studying": (("A quiet place", "Find a room where nobody disturbs you."), ("Short breaks", "Rest for five minutes after each half hour."), ("Notes", "Write the main ideas in your own words.")),
}
TIPS_ASK = ("Give me {n} tips for {t}.", "What are {n} tips for {t}?", "List {n} tips for {t}.", "I need {n} tips for {t}.", "Name {n} tips for {t}.", "Can you give {n} tips for {t}?")
TIP_ASK = ("Expand this tip: {x}", "Explain the tip: {x}", "Say more about this tip: {x}", "Write a sentence about this tip: {x}", "What does this tip mean: {x}?", "Expand the following tip into a sentence: {x}")
STORY = (
    "Once upon a time there was a {j} called {n} who lived in {c}. One day {n} found a {x}. {n} took the {x} home and was very happy.",
    "{n} was a {j} in {c}. Every morning {n} walked to the market to buy a {x}. In the evening {n} went home with the {x}.",
    "In {c} there lived a {j} named {n}. {n} wanted a {x} more than anything. At last a friend gave {n} the {x}.",
    "A long time ago {n} and {m} lived in {c}. {n} had a {x} and {m} had nothing. So {n} gave the {x} to {m}, and they became friends.",
    "{n} lost a {x} in {c}. {m} helped {n} to look for it. In the end {m} found the {x} and {n} said thank you.",
)
STORY_ASK = ("Tell me a story about {n}.", "Write a short story about {n}.", "A story about {n}, please.", "Do you know a story about {n}?", "Can you tell a story about {n}?")
ABOUT_ASK = ("Write one sentence about {t}.", "Tell me about {t}.", "Describe {t} in one sentence.", "What do you know about {t}?", "Say something about {t}.", "One sentence about {t}, please.")
ABOUT = {
    "cats": "Cats are quiet animals that like to sleep in the sun.", "dogs": "Dogs are loyal animals that love to play with people.", "the sea": "The sea is wide and blue and full of fish.",
    "trees": "Trees give us shade, fruit and clean air.", "music": "Music can make people happy or sad without a word.", "winter": "Winter is cold, and the snow makes everything white.",
    "summer": "Summer is warm, and the days are long and bright.", "bread": "Bread is made of flour, water and salt.", "books": "Books keep stories and ideas for many years.", "rain": "Rain falls from the clouds and makes the grass green.",
    "the moon": "The moon shines at night and moves around the earth.", "the sun": "The sun gives light and warmth to the earth.", "birds": "Birds have wings, and most of them can fly.", "trains": "Trains carry many people quickly from one city to another.",
    "coffee": "Coffee is a hot drink that keeps people awake.", "tea": "Tea is a hot drink made from dried leaves.", "mountains": "Mountains are high, and their tops are often covered with snow.", "rivers": "Rivers carry water from the mountains to the sea.",
    "computers": "Computers follow instructions very quickly and never get tired.", "spring": "Spring brings flowers, rain and warmer days.", "autumn": "Autumn turns the leaves red, yellow and brown.", "football": "Football is a game with two teams and one ball.",
}
