"""The raw material of the dialogues: countries and capitals, cities, names, and plain words. Data only."""

CAPITALS = {
    line.split(":")[0]: line.split(":")[1]
    for line in """
Afghanistan:Kabul
Albania:Tirana
Algeria:Algiers
Andorra:Andorra la Vella
Angola:Luanda
Antigua and Barbuda:Saint John's
Argentina:Buenos Aires
Armenia:Yerevan
Australia:Canberra
Austria:Vienna
Azerbaijan:Baku
the Bahamas:Nassau
Bahrain:Manama
Bangladesh:Dhaka
Barbados:Bridgetown
Belarus:Minsk
Belgium:Brussels
Belize:Belmopan
Benin:Porto-Novo
Bhutan:Thimphu
Bolivia:Sucre
Bosnia and Herzegovina:Sarajevo
Botswana:Gaborone
Brazil:Brasilia
Brunei:Bandar Seri Begawan
Bulgaria:Sofia
Burkina Faso:Ouagadougou
Burundi:Gitega
Cambodia:Phnom Penh
Cameroon:Yaounde
Canada:Ottawa
Cape Verde:Praia
the Central African Republic:Bangui
Chad:N'Djamena
Chile:Santiago
China:Beijing
Colombia:Bogota
Comoros:Moroni
Costa Rica:San Jose
Croatia:Zagreb
Cuba:Havana
Cyprus:Nicosia
the Czech Republic:Prague
Czechia:Prague
Denmark:Copenhagen
Djibouti:Djibouti
Dominica:Roseau
the Dominican Republic:Santo Domingo
the Democratic Republic of the Congo:Kinshasa
East Timor:Dili
Ecuador:Quito
Egypt:Cairo
El Salvador:San Salvador
England:London
Equatorial Guinea:Malabo
Eritrea:Asmara
Estonia:Tallinn
Eswatini:Mbabane
Ethiopia:Addis Ababa
Fiji:Suva
Finland:Helsinki
France:Paris
Gabon:Libreville
the Gambia:Banjul
Georgia:Tbilisi
Germany:Berlin
Ghana:Accra
Greece:Athens
Grenada:Saint George's
Guatemala:Guatemala City
Guinea:Conakry
Guinea-Bissau:Bissau
Guyana:Georgetown
Haiti:Port-au-Prince
Honduras:Tegucigalpa
Hungary:Budapest
Iceland:Reykjavik
India:New Delhi
Indonesia:Jakarta
Iran:Tehran
Iraq:Baghdad
Ireland:Dublin
Israel:Jerusalem
Italy:Rome
Ivory Coast:Yamoussoukro
Jamaica:Kingston
Japan:Tokyo
Jordan:Amman
Kazakhstan:Astana
Kenya:Nairobi
Kiribati:Tarawa
Kosovo:Pristina
Kuwait:Kuwait City
Kyrgyzstan:Bishkek
Laos:Vientiane
Latvia:Riga
Lebanon:Beirut
Lesotho:Maseru
Liberia:Monrovia
Libya:Tripoli
Liechtenstein:Vaduz
Lithuania:Vilnius
Luxembourg:Luxembourg
Madagascar:Antananarivo
Malawi:Lilongwe
Malaysia:Kuala Lumpur
the Maldives:Male
Mali:Bamako
Malta:Valletta
the Marshall Islands:Majuro
Mauritania:Nouakchott
Mauritius:Port Louis
Mexico:Mexico City
Micronesia:Palikir
Moldova:Chisinau
Monaco:Monaco
Mongolia:Ulaanbaatar
Montenegro:Podgorica
Morocco:Rabat
Mozambique:Maputo
Myanmar:Naypyidaw
Namibia:Windhoek
Nauru:Yaren
Nepal:Kathmandu
the Netherlands:Amsterdam
New Zealand:Wellington
Nicaragua:Managua
Niger:Niamey
Nigeria:Abuja
North Korea:Pyongyang
North Macedonia:Skopje
Norway:Oslo
Oman:Muscat
Pakistan:Islamabad
Palau:Ngerulmud
Panama:Panama City
Papua New Guinea:Port Moresby
Paraguay:Asuncion
Peru:Lima
the Philippines:Manila
Poland:Warsaw
Portugal:Lisbon
Qatar:Doha
the Republic of the Congo:Brazzaville
Romania:Bucharest
Russia:Moscow
Rwanda:Kigali
Saint Kitts and Nevis:Basseterre
Saint Lucia:Castries
Saint Vincent and the Grenadines:Kingstown
Samoa:Apia
San Marino:San Marino
Sao Tome and Principe:Sao Tome
Saudi Arabia:Riyadh
Scotland:Edinburgh
Senegal:Dakar
Serbia:Belgrade
Seychelles:Victoria
Sierra Leone:Freetown
Singapore:Singapore
Slovakia:Bratislava
Slovenia:Ljubljana
the Solomon Islands:Honiara
Somalia:Mogadishu
South Africa:Pretoria
South Korea:Seoul
South Sudan:Juba
Spain:Madrid
Sri Lanka:Colombo
Sudan:Khartoum
Suriname:Paramaribo
Sweden:Stockholm
Switzerland:Bern
Syria:Damascus
Taiwan:Taipei
Tajikistan:Dushanbe
Tanzania:Dodoma
Thailand:Bangkok
Togo:Lome
Tonga:Nuku'alofa
Trinidad and Tobago:Port of Spain
Tunisia:Tunis
Turkey:Ankara
Turkmenistan:Ashgabat
Tuvalu:Funafuti
Uganda:Kampala
Ukraine:Kyiv
the United Arab Emirates:Abu Dhabi
the United Kingdom:London
the United States:Washington, D.C.
Uruguay:Montevideo
Uzbekistan:Tashkent
Vanuatu:Port Vila
the Vatican:Vatican City
Venezuela:Caracas
Vietnam:Hanoi
Wales:Cardiff
Yemen:Sana'a
Zambia:Lusaka
Zimbabwe:Harare
""".strip().splitlines()
}
"""Country (with its article where English uses one) -> capital."""

COUNTRY_ALIASES = {
    "the USA": "the United States", "USA": "the United States", "the US": "the United States",
    "America": "the United States", "the United States of America": "the United States",
    "the UK": "the United Kingdom", "UK": "the United Kingdom", "Great Britain": "the United Kingdom",
    "Britain": "the United Kingdom", "the UAE": "the United Arab Emirates", "Holland": "the Netherlands",
    "Burma": "Myanmar", "Cote d'Ivoire": "Ivory Coast", "Timor-Leste": "East Timor", "Swaziland": "Eswatini",
}  # fmt: skip

CITIES = [
    "New York",
    "Los Angeles",
    "Chicago",
    "Houston",
    "San Francisco",
    "Boston",
    "Seattle",
    "Miami",
    "Denver",
    "Dallas",
    "Austin",
    "Philadelphia",
    "Las Vegas",
    "Atlanta",
    "Detroit",
    "Portland",
    "Toronto",
    "Montreal",
    "Vancouver",
    "Rio de Janeiro",
    "Sao Paulo",
    "Barcelona",
    "Valencia",
    "Milan",
    "Naples",
    "Venice",
    "Florence",
    "Turin",
    "Munich",
    "Hamburg",
    "Frankfurt",
    "Cologne",
    "Stuttgart",
    "Leipzig",
    "Dresden",
    "Bremen",
    "Zurich",
    "Geneva",
    "Basel",
    "Lyon",
    "Marseille",
    "Nice",
    "Bordeaux",
    "Toulouse",
    "Manchester",
    "Liverpool",
    "Birmingham",
    "Oxford",
    "Cambridge",
    "Bristol",
    "Glasgow",
    "Rotterdam",
    "Antwerp",
    "Porto",
    "Seville",
    "Malaga",
    "Krakow",
    "Istanbul",
    "Dubai",
    "Mumbai",
    "Bangalore",
    "Chennai",
    "Kolkata",
    "Karachi",
    "Shanghai",
    "Shenzhen",
    "Hong Kong",
    "Osaka",
    "Kyoto",
    "Nagoya",
    "Busan",
    "Sydney",
    "Melbourne",
    "Perth",
    "Brisbane",
    "Auckland",
    "Cape Town",
    "Johannesburg",
    "Lagos",
    "Casablanca",
    "Alexandria",
    "San Diego",
    "San Antonio",
    "Phoenix",
    "Orlando",
    "Salt Lake City",
    "Springfield",
    "Gothenburg",
    "Bergen",
    "Salzburg",
    "Graz",
    "Linz",
    "Odessa",
    "Medellin",
    "Cusco",
    "Cancun",
    "Honolulu",
    "Anchorage",
    "Palo Alto",
]

NAMES = [
    "Alice",
    "Bob",
    "Carol",
    "Dave",
    "Eve",
    "Frank",
    "Grace",
    "Heidi",
    "Ivan",
    "Judy",
    "Mallory",
    "Oscar",
    "Peggy",
    "Trent",
    "Victor",
    "Walter",
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Felix",
    "Gina",
    "Henry",
    "Ines",
    "Jack",
    "Kate",
    "Leo",
    "Maria",
    "Noah",
    "Olivia",
    "Paul",
    "Quinn",
    "Rosa",
    "Sam",
    "Tom",
    "Uma",
    "Vera",
    "Will",
    "Xavier",
    "Yara",
    "Zoe",
    "John",
    "Jane",
    "Peter",
    "Mary",
    "James",
    "Linda",
    "Michael",
    "Sarah",
    "Robert",
    "Laura",
    "Daniel",
    "Julia",
    "Thomas",
    "Sophie",
    "Martin",
    "Nina",
    "Lucas",
    "Mia",
    "Max",
    "Lena",
    "Omar",
    "Fatima",
    "Ali",
    "Aisha",
    "Wei",
    "Mei",
    "Yuki",
    "Ken",
    "Raj",
    "Priya",
    "Carlos",
    "Lucia",
    "Diego",
    "Elena",
    "Pedro",
    "Ana",
    "George",
    "Helen",
    "Adam",
    "Amy",
    "Mark",
    "Lisa",
    "Luke",
    "Ella",
    "Simon",
    "Ruth",
    "Tim",
    "Sue",
    "Steve",
    "Karen",
    "Kevin",
    "Nancy",
    "Alex",
    "Chris",
    "Jordan",
    "Taylor",
    "Morgan",
    "Ada",
    "Alan",
    "Grace",
    "Linus",
    "Guido",
    "Dennis",
    "Ken",
    "Donald",
    "Edsger",
    "Barbara",
    "Tony",
    "Charles",
    "Isaac",
    "Albert",
    "Niels",
    "Emmy",
    "Leonhard",
]

SURNAMES = [
    "Smith",
    "Johnson",
    "Brown",
    "Miller",
    "Davis",
    "Wilson",
    "Moore",
    "Taylor",
    "Anderson",
    "Thomas",
    "Jackson",
    "White",
    "Harris",
    "Martin",
    "Thompson",
    "Lee",
    "Walker",
    "Hall",
    "Young",
    "King",
    "Wright",
    "Hill",
    "Green",
    "Baker",
    "Adams",
    "Nelson",
    "Carter",
    "Turner",
    "Parker",
    "Collins",
    "Stewart",
    "Morris",
    "Cook",
]

VERBS = [
    "find",
    "update",
    "create",
    "check",
    "fetch",
    "list",
    "remove",
    "cancel",
    "open",
    "close",
    "start",
    "stop",
    "lock",
    "unlock",
    "book",
    "order",
    "rate",
    "review",
    "count",
    "measure",
    "scan",
    "print",
    "share",
    "archive",
    "restore",
    "approve",
    "reject",
    "assign",
    "schedule",
    "track",
    "ship",
    "refund",
    "renew",
    "verify",
    "validate",
    "register",
    "publish",
    "download",
    "upload",
    "compress",
    "resize",
    "rename",
    "move",
    "copy",
    "merge",
    "split",
    "sort",
    "filter",
    "search",
    "inspect",
    "describe",
    "load",
    "save",
    "send",
    "show",
    "reserve",
    "activate",
    "disable",
    "enable",
    "invite",
    "notify",
    "report",
    "submit",
    "test",
    "watch",
]

NOUNS = [
    "order",
    "ticket",
    "invoice",
    "account",
    "user",
    "project",
    "task",
    "file",
    "folder",
    "image",
    "video",
    "song",
    "book",
    "recipe",
    "flight",
    "hotel",
    "room",
    "car",
    "bike",
    "train",
    "package",
    "parcel",
    "product",
    "customer",
    "employee",
    "contract",
    "payment",
    "device",
    "sensor",
    "server",
    "robot",
    "door",
    "window",
    "lamp",
    "garden",
    "plant",
    "animal",
    "pet",
    "movie",
    "game",
    "player",
    "team",
    "match",
    "score",
    "course",
    "lesson",
    "student",
    "teacher",
    "report",
    "document",
    "page",
    "message",
    "email",
    "calendar",
    "event",
    "meeting",
    "reminder",
    "alarm",
    "timer",
    "note",
    "list",
    "table",
    "menu",
    "meal",
    "coupon",
    "badge",
    "account",
    "license",
    "profile",
    "photo",
    "album",
    "playlist",
    "channel",
    "stream",
    "backup",
    "job",
    "queue",
    "worker",
    "branch",
    "commit",
    "issue",
    "comment",
    "label",
    "record",
    "patient",
    "doctor",
    "appointment",
    "vehicle",
    "route",
    "bridge",
    "tower",
    "station",
    "museum",
    "planet",
    "comet",
    "river",
    "mountain",
    "island",
]

ADJECTIVES = [
    "red",
    "blue",
    "green",
    "old",
    "new",
    "small",
    "large",
    "fast",
    "slow",
    "quiet",
    "loud",
    "bright",
    "dark",
    "warm",
    "cold",
    "simple",
    "strange",
    "famous",
    "hidden",
    "ancient",
    "modern",
    "heavy",
    "light",
    "long",
    "short",
    "deep",
    "high",
    "wild",
    "calm",
    "soft",
    "hard",
    "open",
    "empty",
    "full",
    "clean",
    "broken",
    "early",
    "late",
]

ABSTRACT = [
    "gravity",
    "love",
    "democracy",
    "inflation",
    "evolution",
    "music",
    "history",
    "physics",
    "chemistry",
    "philosophy",
    "economics",
    "art",
    "football",
    "photosynthesis",
    "quantum mechanics",
    "relativity",
    "electricity",
    "magnetism",
    "poetry",
    "religion",
    "language",
    "cooking",
    "chess",
    "machine learning",
    "blockchain",
    "climate change",
    "the stock market",
    "black holes",
    "dinosaurs",
    "volcanoes",
    "the ocean",
    "sleep",
    "dreams",
    "time travel",
    "the internet",
    "vaccines",
    "the brain",
    "the heart",
    "the moon",
    "the sun",
    "stars",
    "rainbows",
    "earthquakes",
]

COLORS = [
    "red",
    "blue",
    "green",
    "yellow",
    "orange",
    "purple",
    "black",
    "white",
    "pink",
    "brown",
    "gray",
    "silver",
    "gold",
    "violet",
    "cyan",
    "magenta",
]

NUMBER_WORDS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS_WORDS = ["_", "_", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def number_in_words(number: int) -> str:
    """0 … 99 in English words, e.g. 42 -> 'forty-two'."""
    if number < 20:
        return NUMBER_WORDS[number]
    tens, ones = divmod(number, 10)
    return TENS_WORDS[tens] + (f"-{NUMBER_WORDS[ones]}" if ones else "")
